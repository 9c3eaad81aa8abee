#include "trainer/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/error.h"
#include "precision/philox.h"

namespace qstep::trainer {

namespace {

double quantile_of_sorted(std::span<const double> values, double share) {
  const double position = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], position - std::floor(position));
}

}  // namespace

double mean(std::span<const double> values) {
  ops::check(!values.empty(), "mean of nothing");
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const double center = mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - center) * (v - center);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double standard_error(std::span<const double> values) {
  return standard_deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

double quantile(std::span<const double> values, double share) {
  ops::check(!values.empty(), "quantile of nothing");
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return quantile_of_sorted(sorted, share);
}

Interval bootstrap_mean(std::span<const double> values, const BootstrapOptions& options) {
  ops::check(!values.empty() && options.resamples > 0, "bootstrap of nothing");
  const auto n = static_cast<uint64_t>(values.size());
  std::vector<double> means(static_cast<size_t>(options.resamples));
  for (size_t resample = 0; resample < means.size(); ++resample) {
    precision::PhiloxWords words{};
    double sum = 0;
    for (uint64_t i = 0; i < n; ++i) {
      if (i % 4 == 0) {
        words = precision::philox4x32(
            options.seed, {{static_cast<uint32_t>(i / 4), static_cast<uint32_t>(resample), 0, 0}});
      }
      // floor(n u), u in [0, 1) with 32 bits.
      sum += values[static_cast<size_t>(words.w[i % 4] * n >> 32)];
    }
    means[resample] = sum / static_cast<double>(n);
  }
  std::sort(means.begin(), means.end());
  const double tail = (1 - options.level) / 2;
  return {quantile_of_sorted(means, tail), quantile_of_sorted(means, 1 - tail)};
}

}  // namespace qstep::trainer
