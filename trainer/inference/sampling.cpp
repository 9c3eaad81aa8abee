#include "trainer/inference/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/error.h"
#include "precision/philox.h"

namespace qstep::trainer {

namespace {

constexpr uint32_t kSampleStream = 0x53414D50;  // "SAMP"

// Uniform in [0, 1) with 53 bits.
double uniform(uint64_t seed, int64_t position) {
  const auto p = static_cast<uint64_t>(position);
  const auto words = precision::philox4x32(
      seed, {{static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32), 0, kSampleStream}});
  const uint64_t bits = (static_cast<uint64_t>(words.w[0]) << 32 | words.w[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace

int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                     int64_t position, std::vector<int32_t>& order) {
  ops::check(!logits.empty(), "sample_token: no logits");
  if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
    throw ops::Error(ops::ExitCode::kNonFinite,
                     fmt::format("position {}: the model's logits are not finite; use an earlier "
                                 "checkpoint",
                                 position));
  }
  // Ties go to the smaller id, so that equal logits give equal text everywhere.
  const auto before = [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] != logits[static_cast<size_t>(b)]
               ? logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]
               : a < b;
  };
  order.resize(logits.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.temperature <= 0.0) return *std::min_element(order.begin(), order.end(), before);

  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size())) {
    std::nth_element(order.begin(), order.begin() + options.top_k, order.end(), before);
    order.resize(static_cast<size_t>(options.top_k));
  }
  std::sort(order.begin(), order.end(), before);

  const double top = logits[static_cast<size_t>(order.front())];
  const auto weight = [&](int32_t id) {
    return std::exp((logits[static_cast<size_t>(id)] - top) / options.temperature);
  };
  double total = 0;
  for (const int32_t id : order) total += weight(id);
  double kept = 0;
  size_t n = 0;
  while (n < order.size() && (n == 0 || kept < options.top_p * total)) kept += weight(order[n++]);

  double left = uniform(options.seed, position) * kept;
  for (size_t i = 0; i < n; ++i) {
    left -= weight(order[i]);
    if (left < 0) return order[i];
  }
  return order[n - 1];
}

}  // namespace qstep::trainer
