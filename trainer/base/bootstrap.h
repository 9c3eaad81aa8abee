// What a few repeated measurements say about where they lie: mean, interquartile mean, standard
// deviation and a bootstrap interval. Numbers in, numbers out.
#pragma once

#include <cstdint>
#include <span>

namespace qstep::trainer {

struct Interval {
  double low = 0, high = 0;
};

// Of at least one value.
double mean(std::span<const double> values);

// sqrt(sum (v - mean)^2 / (n - 1)), of n values; 0 of a single one.
double standard_deviation(std::span<const double> values);

// The standard error of the mean: standard_deviation / sqrt(n).
double standard_error(std::span<const double> values);

// The value below which this share of at least one value lies, linear between neighbours: 0.5 is
// the median.
double quantile(std::span<const double> values, double share);

// The mean of what is left when floor(n / 4) of at least one value are left out at either end. A
// quarter of the values may be anything; of normal ones it knows the center nearly as well as the
// mean does (variance 1.195 / n instead of 1 / n). Sorts the values.
double interquartile_mean(std::span<double> values);

struct BootstrapOptions {
  double level = 0.95;
  int64_t resamples = 10000;
  uint64_t seed = 1;
};

struct Bootstrap {
  Interval interval;
  double standard_error = 0;  // standard deviation over the resamples
};

// Percentile bootstrap of the interquartile mean (Efron 1979): `resamples` times n groups of
// neighbouring values are drawn with replacement, and the interval holds the middle `level` of the
// interquartile means of the values in them. Values of a group may depend on each other, groups may
// not. The same values and options give the same bits. One group: an interval of no width.
Bootstrap bootstrap_interquartile_mean(std::span<const double> values, size_t group_size,
                                       const BootstrapOptions& options);

}  // namespace qstep::trainer
