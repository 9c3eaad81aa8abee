#include "ops/team.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::device::SerialTeam;

// The order of ops/team.h, restated: threads, then lanes by halves, then warps by halves.
float sum_in_order(const std::vector<float>& x, size_t size) {
  std::vector<float> of_thread(size, 0.0f);
  for (size_t i = 0; i < x.size(); ++i) of_thread[i % size] += x[i];
  const auto fold = [](std::vector<float> v) {
    while (v.size() > 1) {
      const size_t half = v.size() / 2;
      for (size_t i = 0; i < half; ++i) v[i] += v[i + half];
      v.resize(half);
    }
    return v[0];
  };
  std::vector<float> of_warp;
  for (size_t first = 0; first < size; first += 32) {
    const size_t lanes = std::min<size_t>(size - first, 32);
    const auto* const lane = of_thread.data() + first;
    of_warp.push_back(fold(std::vector<float>(lane, lane + lanes)));
  }
  return fold(of_warp);
}

TEST(Team, SumsInOneOrder) {
  Random random(1);
  for (const int size : {1, 2, 8, 32, 64, 256, 1024}) {
    for (const size_t n : {0, 1, 7, 100, 5000}) {
      std::vector<float> x(n);
      for (float& v : x) v = static_cast<float>(random.uniform(-1, 1));
      const auto term = [&](int64_t i) { return x[static_cast<size_t>(i)]; };
      const float expected = sum_in_order(x, static_cast<size_t>(size));
      for (const bool backwards : {false, true}) {
        const SerialTeam team(size, backwards);
        EXPECT_EQ(team.sum(static_cast<int64_t>(n), term), expected) << size << " " << n;
      }
    }
  }
}

TEST(Team, MaxLeavesNansOut) {
  const std::vector<float> x{-3, NAN, -7, -2.5f, NAN};
  for (const int size : {1, 2, 4, 8}) {
    const SerialTeam team(size);
    EXPECT_EQ(team.max(5, [&](int64_t i) { return x[static_cast<size_t>(i)]; }), -2.5f);
    EXPECT_EQ(team.max(0, [&](int64_t) { return 1.0f; }), -INFINITY);
    EXPECT_EQ(team.max(1, [&](int64_t) { return NAN; }), -INFINITY);
  }
}

TEST(Team, EveryItemOnce) {
  for (const int size : {1, 4, 64}) {
    std::vector<int> seen(100, 0);
    SerialTeam(size).each(100, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
    EXPECT_EQ(seen, std::vector<int>(100, 1));
  }
}

TEST(Team, SizesArePowersOfTwoWithAtMostSoManyTurns) {
  EXPECT_EQ(ops::device::team_size(0, 2), 1);
  EXPECT_EQ(ops::device::team_size(1, 2), 1);
  EXPECT_EQ(ops::device::team_size(96, 2), 64);
  EXPECT_EQ(ops::device::team_size(512, 2), 256);
  EXPECT_EQ(ops::device::team_size(100000, 2), 512);
}

}  // namespace
}  // namespace qstep::test
