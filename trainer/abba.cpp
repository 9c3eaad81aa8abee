#include "trainer/abba.h"

#include <algorithm>
#include <cmath>

#include "ops/error.h"

namespace qstep::trainer {

Side side_of(int64_t segment) {
  const int64_t block = segment / kSegmentsPerBlock, place = segment % kSegmentsPerBlock;
  const bool outer = place == 0 || place == kSegmentsPerBlock - 1;
  return outer == (block % 2 == 0) ? Side::kA : Side::kB;
}

int64_t turn_of(int64_t segment) {
  int64_t turn = segment / kSegmentsPerBlock * (kSegmentsPerBlock / 2);
  for (int64_t s = segment / kSegmentsPerBlock * kSegmentsPerBlock; s < segment; ++s) {
    turn += side_of(s) == side_of(segment) ? 1 : 0;
  }
  return turn;
}

std::vector<double> block_logs(std::span<const double> segment_values) {
  const auto blocks = static_cast<int64_t>(segment_values.size()) / kSegmentsPerBlock;
  std::vector<double> logs;
  for (int64_t block = 0; block < blocks; ++block) {
    double a = 0, b = 0;
    for (int64_t s = block * kSegmentsPerBlock; s < (block + 1) * kSegmentsPerBlock; ++s) {
      const double value = segment_values[static_cast<size_t>(s)];
      ops::check(value > 0 && std::isfinite(value), "a segment's time must be positive");
      (side_of(s) == Side::kA ? a : b) += value;
    }
    logs.push_back(std::log(a / b));
  }
  return logs;
}

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGain:
      return "gain";
    case Verdict::kRegression:
      return "regression";
    case Verdict::kNeutral:
      return "neutral";
    case Verdict::kInconclusive:
      break;
  }
  return "inconclusive";
}

int64_t blocks_needed(double deviation, double threshold) {
  constexpr double kLevel = 1.96, kPower = 0.84;  // normal quantiles of 97.5 % and 80 %
  const double n = std::pow((kLevel + kPower) * deviation / threshold, 2);
  constexpr double kMany = 1e9;  // beyond what anybody measures, and within int64_t
  return std::max(kMinBlocks, static_cast<int64_t>(std::ceil(std::min(n, kMany))));
}

AbbaResult judge(std::span<const double> logs, const AbbaOptions& options) {
  AbbaResult result;
  result.blocks = static_cast<int64_t>(logs.size());
  result.gain = std::exp(mean(logs));
  const Interval of_logs = bootstrap_mean(logs, options.bootstrap);
  result.interval = {std::exp(of_logs.low), std::exp(of_logs.high)};
  result.deviation = standard_deviation(logs);
  result.blocks_needed = blocks_needed(result.deviation, options.threshold);
  if (result.blocks < kMinBlocks) return result;
  const double above = 1 + options.threshold, below = 1 - options.threshold;
  if (result.interval.low > above) {
    result.verdict = Verdict::kGain;
  } else if (result.interval.high < below) {
    result.verdict = Verdict::kRegression;
  } else if (result.interval.low >= below && result.interval.high <= above) {
    result.verdict = Verdict::kNeutral;
  }
  return result;
}

}  // namespace qstep::trainer
