#include "trainer/bench/abba.h"

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

std::vector<double> pair_logs(std::span<const double> segment_values) {
  const auto blocks = static_cast<int64_t>(segment_values.size()) / kSegmentsPerBlock;
  std::vector<double> logs;
  for (int64_t s = 0; s < blocks * kSegmentsPerBlock; s += 2) {
    const double first = segment_values[static_cast<size_t>(s)],
                 second = segment_values[static_cast<size_t>(s) + 1];
    ops::check(first > 0 && second > 0 && std::isfinite(first) && std::isfinite(second),
               "a segment's time must be positive");
    logs.push_back(side_of(s) == Side::kA ? std::log(first / second) : std::log(second / first));
  }
  return logs;
}

std::vector<double> block_logs(std::span<const double> pair_logs) {
  std::vector<double> logs;
  for (size_t i = 0; i + 1 < pair_logs.size(); i += kPairsPerBlock) {
    logs.push_back((pair_logs[i] + pair_logs[i + 1]) / 2);
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

AbbaResult judge(std::span<const double> pair_logs, const AbbaOptions& options) {
  AbbaResult result;
  result.blocks = static_cast<int64_t>(pair_logs.size()) / kPairsPerBlock;
  std::vector<double> sorted(pair_logs.begin(), pair_logs.end());
  result.gain = std::exp(interquartile_mean(sorted));
  const Bootstrap of_logs =
      bootstrap_interquartile_mean(pair_logs, kPairsPerBlock, options.bootstrap);
  result.interval = {std::exp(of_logs.interval.low), std::exp(of_logs.interval.high)};
  result.deviation = of_logs.standard_error * std::sqrt(static_cast<double>(result.blocks));
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
