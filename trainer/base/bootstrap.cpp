#include "trainer/base/bootstrap.h"

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

double interquartile_mean(std::span<double> values) {
  std::sort(values.begin(), values.end());
  const size_t left_out = values.size() / 4;
  return mean(values.subspan(left_out, values.size() - 2 * left_out));
}

Bootstrap bootstrap_interquartile_mean(std::span<const double> values, size_t group_size,
                                       const BootstrapOptions& options) {
  const uint64_t n = values.size() / group_size;
  ops::check(n > 0 && n * group_size == values.size() && options.resamples > 0,
             "bootstrap of no whole group");
  std::vector<double> centers(static_cast<size_t>(options.resamples)), drawn(values.size());
  for (size_t resample = 0; resample < centers.size(); ++resample) {
    precision::PhiloxWords words{};
    for (uint64_t i = 0; i < n; ++i) {
      if (i % 4 == 0) {
        words = precision::philox4x32(
            options.seed, {{static_cast<uint32_t>(i / 4), static_cast<uint32_t>(resample), 0, 0}});
      }
      // floor(n u), u in [0, 1) with 32 bits.
      const auto group = values.subspan((words.w[i % 4] * n >> 32) * group_size, group_size);
      std::copy(group.begin(), group.end(),
                drawn.begin() + static_cast<std::ptrdiff_t>(i * group_size));
    }
    centers[resample] = interquartile_mean(drawn);
  }
  std::sort(centers.begin(), centers.end());
  const double tail = (1 - options.level) / 2;
  return {.interval = {quantile_of_sorted(centers, tail), quantile_of_sorted(centers, 1 - tail)},
          .standard_error = standard_deviation(centers)};
}

}  // namespace qstep::trainer
