#include "trainer/inference/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

namespace qstep::trainer {
namespace {

// Probabilities 1/2, 1/4, 1/8, 1/16, 1/16 at ids 3, 0, 4, 1, 2.
const std::vector<float> kLogits = [] {
  std::vector<float> logits;
  for (const double p : {0.25, 0.0625, 0.0625, 0.5, 0.125}) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  return logits;
}();

std::map<int32_t, int> draw(const SamplingOptions& options, int n) {
  std::map<int32_t, int> counts;
  std::vector<int32_t> order;
  for (int64_t position = 0; position < n; ++position) {
    ++counts[sample_token(kLogits, options, position, order)];
  }
  return counts;
}

std::set<int32_t> ids(const std::map<int32_t, int>& counts) {
  std::set<int32_t> all;
  for (const auto& [id, count] : counts) all.insert(id);
  return all;
}

double chi_square(const std::map<int32_t, int>& counts, const std::vector<double>& probabilities,
                  int n) {
  double sum = 0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    const auto found = counts.find(static_cast<int32_t>(id));
    const double expected = probabilities[id] * n;
    const double difference = (found == counts.end() ? 0 : found->second) - expected;
    if (expected > 0) sum += difference * difference / expected;
  }
  return sum;
}

TEST(Sampling, TemperatureZeroTakesTheFirstOfTheLargest) {
  std::vector<int32_t> order;
  const std::vector<float> logits{1.0f, 3.0f, -2.0f, 3.0f, 3.0f};
  for (int64_t position = 0; position < 10; ++position) {
    EXPECT_EQ(1, sample_token(logits, {.temperature = 0}, position, order));
  }
  EXPECT_EQ(0, sample_token(std::vector<float>{-5.0f}, {.temperature = 0}, 0, order));
}

// With a right sampler, chi-square of 4 degrees of freedom is above 33.4 once in a million seeds,
// of 2 above 27.6.
TEST(Sampling, HasTheDistributionOfTheSoftmax) {
  constexpr int kDraws = 20000;
  EXPECT_LT(chi_square(draw({.seed = 3}, kDraws), {0.25, 0.0625, 0.0625, 0.5, 0.125}, kDraws),
            33.4);
  // Temperature 1/2 squares the probabilities, 2 takes their roots.
  const auto powered = [](double power) {
    std::vector<double> p{0.25, 0.0625, 0.0625, 0.5, 0.125};
    double total = 0;
    for (double& x : p) total += x = std::pow(x, power);
    for (double& x : p) x /= total;
    return p;
  };
  EXPECT_LT(chi_square(draw({.temperature = 0.5, .seed = 4}, kDraws), powered(2), kDraws), 33.4);
  EXPECT_LT(chi_square(draw({.temperature = 2, .seed = 5}, kDraws), powered(0.5), kDraws), 33.4);
  EXPECT_LT(
      chi_square(draw({.top_k = 3, .seed = 6}, kDraws), {2.0 / 7, 0, 0, 4.0 / 7, 1.0 / 7}, kDraws),
      27.6);
}

TEST(Sampling, TopKAndTopPKeepTheMostProbable) {
  constexpr int kDraws = 2000;
  EXPECT_EQ((std::set<int32_t>{3}), ids(draw({.top_k = 1}, kDraws)));
  EXPECT_EQ((std::set<int32_t>{0, 3}), ids(draw({.top_k = 2}, kDraws)));
  EXPECT_EQ((std::set<int32_t>{0, 1, 3, 4}),
            ids(draw({.top_k = 4}, kDraws)));  // the tie: smaller id
  EXPECT_EQ((std::set<int32_t>{0, 1, 2, 3, 4}), ids(draw({.top_k = 50}, kDraws)));
  EXPECT_EQ((std::set<int32_t>{3}), ids(draw({.top_p = 0.4}, kDraws)));
  EXPECT_EQ((std::set<int32_t>{0, 3}), ids(draw({.top_p = 0.6}, kDraws)));
  EXPECT_EQ((std::set<int32_t>{0, 3, 4}), ids(draw({.top_p = 0.8}, kDraws)));
  EXPECT_EQ((std::set<int32_t>{3}), ids(draw({.top_p = 0.0}, kDraws)));
  // top_p is of what top_k left: 4/7 of three tokens is already 0.57.
  EXPECT_EQ((std::set<int32_t>{3}), ids(draw({.top_k = 3, .top_p = 0.57}, kDraws)));
}

TEST(Sampling, DependsOnSeedAndPositionAlone) {
  std::vector<int32_t> order, other{9, 9, 9};
  const auto sequence = [&](uint64_t seed, std::vector<int32_t>& scratch, bool backwards) {
    std::vector<int32_t> all(200);
    for (int64_t i = 0; i < 200; ++i) {
      const int64_t position = backwards ? 199 - i : i;
      all[static_cast<size_t>(position)] = sample_token(kLogits, {.seed = seed}, position, scratch);
    }
    return all;
  };
  EXPECT_EQ(sequence(7, order, false), sequence(7, other, true));
  EXPECT_NE(sequence(7, order, false), sequence(8, order, false));
}

}  // namespace
}  // namespace qstep::trainer
