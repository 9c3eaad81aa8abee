// Intervals of a mean against closed forms, and how often they hold it.
#include "trainer/base/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/compare.h"
#include "tests/trainer/normal_numbers.h"

namespace qstep::trainer::testing {
namespace {

using Values = std::vector<double>;

TEST(Bootstrap, Moments) {
  const Values values{2, 4, 4, 4, 5, 5, 7, 9};
  EXPECT_DOUBLE_EQ(5.0, mean(values));
  EXPECT_DOUBLE_EQ(std::sqrt(32.0 / 7.0), standard_deviation(values));
  EXPECT_DOUBLE_EQ(std::sqrt(32.0 / 7.0 / 8.0), standard_error(values));
  EXPECT_EQ(0.0, standard_deviation(Values{3.5}));
}

TEST(Bootstrap, Quantiles) {
  const Values values{40, 10, 30, 20};
  EXPECT_DOUBLE_EQ(10, quantile(values, 0));
  EXPECT_DOUBLE_EQ(25, quantile(values, 0.5));
  EXPECT_DOUBLE_EQ(32.5, quantile(values, 0.75));
  EXPECT_DOUBLE_EQ(40, quantile(values, 1));
  EXPECT_DOUBLE_EQ(7, quantile(Values{7}, 0.3));
}

TEST(Bootstrap, InterquartileMean) {
  Values values{100, 3, -50, 1, 2, 4, 1000, 0};
  EXPECT_DOUBLE_EQ(2.5, interquartile_mean(values));  // of 1, 2, 3, 4
  Values few{1, 5, 9};
  EXPECT_DOUBLE_EQ(5, interquartile_mean(few));
}

Interval interval_of(const Values& values, const BootstrapOptions& options) {
  return bootstrap_interquartile_mean(values, 1, options).interval;
}

// The interquartile mean of n normal values has variance (q + z^2 / 2) / (1/4) / n with z = 0.6745,
// their third quartile, and q = 0.1427, the integral of x^2 over the middle half: 1.195 / n. The
// bootstrap finds its root from one sample of 400 to about 6 %, from 30 of them to 1.1 %, of which
// four; and the standard error too.
TEST(Bootstrap, IsTheClosedFormForNormalValues) {
  constexpr int kSamples = 30, kValues = 400;
  test::Random random(501);
  double half_width = 0, standard_error = 0;
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    Values values;
    for (int i = 0; i < kValues; ++i) values.push_back(3 + 2 * normal(random));
    const Bootstrap b =
        bootstrap_interquartile_mean(values, 1, {.level = 0.95, .resamples = 2000, .seed = sample});
    half_width += (b.interval.high - b.interval.low) / 2 / kSamples;
    standard_error += b.standard_error / kSamples;
  }
  const double sigma = 2 * std::sqrt(1.195 / kValues);
  EXPECT_NEAR(1.96 * sigma, half_width, 0.044 * 1.96 * sigma);
  EXPECT_NEAR(sigma, standard_error, 0.044 * sigma);
}

// Values of a group come and go together: of two pairs that cancel nothing is uncertain.
TEST(Bootstrap, DrawsWholeGroups) {
  const Values values{-1, 1, 1, -1, -1, 1};
  const BootstrapOptions options{.level = 0.95, .resamples = 999, .seed = 1};
  EXPECT_EQ(0.0, bootstrap_interquartile_mean(values, 2, options).standard_error);
  EXPECT_GT(bootstrap_interquartile_mean(values, 1, options).standard_error, 0.1);
  EXPECT_ANY_THROW(bootstrap_interquartile_mean(values, 4, options));
}

// Two values: the mean is the lower one, the middle or the higher one with 1/4, 1/2, 1/4.
TEST(Bootstrap, IsExactForTwoValues) {
  const Interval all = interval_of(Values{1, 3}, {.level = 0.95, .resamples = 10000, .seed = 1});
  EXPECT_EQ(1, all.low);
  EXPECT_EQ(3, all.high);
  const Interval middle = interval_of(Values{1, 3}, {.level = 0.4, .resamples = 10000, .seed = 1});
  EXPECT_EQ(2, middle.low);
  EXPECT_EQ(2, middle.high);
}

TEST(Bootstrap, OfEqualValuesHasNoWidth) {
  for (const Values& values : {Values{0.25}, Values{0.25, 0.25, 0.25}}) {
    const Interval interval = interval_of(values, {});
    EXPECT_EQ(0.25, interval.low);
    EXPECT_EQ(0.25, interval.high);
  }
}

TEST(Bootstrap, HasTheSameBitsForTheSameSeed) {
  const Values values{0.01317, -0.00241, 0.00753, 0.01109, 0.00402, 0.00937, -0.00133, 0.00651};
  const auto with_seed = [&](uint64_t seed) {
    return bootstrap_interquartile_mean(values, 1, {.level = 0.95, .resamples = 999, .seed = seed});
  };
  EXPECT_EQ(with_seed(7).interval.low, with_seed(7).interval.low);
  EXPECT_EQ(with_seed(7).standard_error, with_seed(7).standard_error);
  EXPECT_NE(with_seed(7).standard_error, with_seed(8).standard_error);
}

// Percentile intervals of few values are a little narrow. 1000 experiments: standard deviation
// 0.008, of which four.
TEST(Bootstrap, CoversTheCenterAboutAsOftenAsItSays) {
  const auto covered = [](int n, uint64_t seed) {
    test::Random random(seed);
    int hits = 0;
    for (uint64_t experiment = 0; experiment < 1000; ++experiment) {
      Values values;
      for (int i = 0; i < n; ++i) values.push_back(normal(random));
      const Interval interval =
          interval_of(values, {.level = 0.95, .resamples = 2000, .seed = experiment});
      hits += interval.low <= 0 && 0 <= interval.high ? 1 : 0;
    }
    return hits / 1000.0;
  };
  EXPECT_NEAR(0.93, covered(8, 502), 0.032);
  EXPECT_NEAR(0.95, covered(20, 503), 0.032);
}

}  // namespace
}  // namespace qstep::trainer::testing
