#include "data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace qstep::data {
namespace {

TEST(Permutation, IsABijectionForEverySize) {
  for (uint64_t n = 1; n <= 600; ++n) {
    const Permutation p(n, 7, n % 5);
    std::vector<bool> seen(n, false);
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t j = p(i);
      ASSERT_LT(j, n);
      ASSERT_FALSE(seen[j]) << "n " << n << " position " << i;
      seen[j] = true;
    }
  }
}

TEST(Permutation, IsABijectionJustAboveAndBelowPowersOfTwo) {
  for (const uint64_t n : {65535u, 65536u, 65537u, 262145u}) {
    const Permutation p(n, 1, 0);
    std::vector<bool> seen(n, false);
    for (uint64_t i = 0; i < n; ++i) seen[p(i)] = true;
    for (uint64_t i = 0; i < n; ++i) ASSERT_TRUE(seen[i]);
  }
}

TEST(Permutation, IsAPureFunctionOfItsKey) {
  const Permutation a(1000003, 42, 3), b(1000003, 42, 3), other_seed(1000003, 43, 3),
      other_epoch(1000003, 42, 4);
  int same_seed = 0, same_epoch = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(a(i), b(i));
    same_seed += a(i) == other_seed(i);
    same_epoch += a(i) == other_epoch(i);
  }
  // Each coincidence has probability 1e-6 per position: 1000 positions give 1e-3 on average.
  EXPECT_LE(same_seed, 1);
  EXPECT_LE(same_epoch, 1);
}

TEST(Permutation, WorksForHugeSizes) {
  const uint64_t n = (uint64_t{1} << 62) + 12345;
  const Permutation p(n, 1, 1);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_LT(p(i), n);
}

// First values are fixed for good: a resumed run must see the order that it was started with.
TEST(Permutation, OrderIsFrozen) {
  const Permutation p(1000, 1, 0);
  std::vector<uint64_t> first;
  for (uint64_t i = 0; i < 8; ++i) first.push_back(p(i));
  EXPECT_EQ(first, (std::vector<uint64_t>{973, 754, 969, 824, 992, 852, 579, 914}));
}

// Where positions 0..n-1 go should look uniform: chi-squared over the cells of (third of position,
// third of value) is about 4 degrees of freedom, mean 4; 30 has probability below 1e-5.
TEST(Permutation, MixesPositions) {
  for (const uint64_t n : {300u, 3000u, 30000u}) {
    double worst = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const Permutation p(n, seed, 0);
      std::vector<double> cells(9, 0);
      for (uint64_t i = 0; i < n; ++i) cells[i * 3 / n * 3 + p(i) * 3 / n] += 1;
      double chi2 = 0;
      for (const double c : cells) chi2 += (c - n / 9.0) * (c - n / 9.0) / (n / 9.0);
      worst = std::max(worst, chi2);
    }
    EXPECT_LT(worst, 30.0) << n;
  }
}

}  // namespace
}  // namespace qstep::data
