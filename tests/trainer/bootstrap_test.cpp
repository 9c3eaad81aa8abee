// Intervals of a mean against closed forms, and how often they hold it.
#include "trainer/bootstrap.h"

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

// The bootstrap distribution of a mean of many values is normal with standard deviation
// s sqrt((n - 1) / n) / sqrt(n). A quantile of 10,000 draws from it is off by
// sqrt(p (1 - p) / 10,000) / density: 0.027 of them at 2.5 %, 0.015 at 15.9 %; five of those.
TEST(Bootstrap, IsTheClosedFormForNormalValues) {
  test::Random random(501);
  const double n = 400;
  Values values;
  for (int i = 0; i < n; ++i) values.push_back(3 + 2 * normal(random));
  const double sigma = standard_deviation(values) * std::sqrt((n - 1) / n) / std::sqrt(n);
  const Interval wide = bootstrap_mean(values, {.level = 0.95, .resamples = 10000, .seed = 1});
  EXPECT_NEAR(mean(values) - 1.96 * sigma, wide.low, 0.135 * sigma);
  EXPECT_NEAR(mean(values) + 1.96 * sigma, wide.high, 0.135 * sigma);
  const Interval narrow = bootstrap_mean(values, {.level = 0.6827, .resamples = 10000, .seed = 1});
  EXPECT_NEAR(mean(values) - sigma, narrow.low, 0.075 * sigma);
  EXPECT_NEAR(mean(values) + sigma, narrow.high, 0.075 * sigma);
}

// Two values: the mean is the lower one, the middle or the higher one with 1/4, 1/2, 1/4.
TEST(Bootstrap, IsExactForTwoValues) {
  const Interval all = bootstrap_mean(Values{1, 3}, {.level = 0.95, .resamples = 10000, .seed = 1});
  EXPECT_EQ(1, all.low);
  EXPECT_EQ(3, all.high);
  const Interval middle =
      bootstrap_mean(Values{1, 3}, {.level = 0.4, .resamples = 10000, .seed = 1});
  EXPECT_EQ(2, middle.low);
  EXPECT_EQ(2, middle.high);
}

TEST(Bootstrap, OfEqualValuesHasNoWidth) {
  for (const Values& values : {Values{0.25}, Values{0.25, 0.25, 0.25}}) {
    const Interval interval = bootstrap_mean(values, {});
    EXPECT_EQ(0.25, interval.low);
    EXPECT_EQ(0.25, interval.high);
  }
}

TEST(Bootstrap, HasTheSameBitsForTheSameSeed) {
  const Values values{0.01317, -0.00241, 0.00753, 0.01109, 0.00402, 0.00937, -0.00133, 0.00651};
  const Interval first = bootstrap_mean(values, {.level = 0.95, .resamples = 999, .seed = 7});
  const Interval again = bootstrap_mean(values, {.level = 0.95, .resamples = 999, .seed = 7});
  EXPECT_EQ(first.low, again.low);
  EXPECT_EQ(first.high, again.high);
  const Interval other = bootstrap_mean(values, {.level = 0.95, .resamples = 999, .seed = 8});
  EXPECT_NE(first.low, other.low);
}

// What the header says of small samples: P(|t| < 1.96 sqrt((n - 1) / n)), t with n - 1 degrees of
// freedom, is 0.891 at n = 8 and 0.929 at n = 20. 1000 experiments: standard deviation 0.010 and
// 0.008, of which four.
TEST(Bootstrap, CoversTheMeanAsOftenAsItSays) {
  const auto covered = [](int n, uint64_t seed) {
    test::Random random(seed);
    int hits = 0;
    for (uint64_t experiment = 0; experiment < 1000; ++experiment) {
      Values values;
      for (int i = 0; i < n; ++i) values.push_back(normal(random));
      const Interval interval =
          bootstrap_mean(values, {.level = 0.95, .resamples = 2000, .seed = experiment});
      hits += interval.low <= 0 && 0 <= interval.high ? 1 : 0;
    }
    return hits / 1000.0;
  };
  EXPECT_NEAR(0.891, covered(8, 502), 0.04);
  EXPECT_NEAR(0.929, covered(20, 503), 0.033);
}

}  // namespace
}  // namespace qstep::trainer::testing
