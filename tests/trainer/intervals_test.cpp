// Interval arithmetic against counting on a grid of single nanoseconds.
#include "trainer/base/intervals.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/compare.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kTime = 60;  // ns, of the grid

using Grid = std::vector<int>;  // how many run in [t, t + 1)

Grid grid_of(std::span<const TimeRange> intervals) {
  Grid grid(static_cast<size_t>(kTime));
  for (const TimeRange& x : intervals) {
    for (int64_t t = x.begin; t < x.end; ++t) ++grid[static_cast<size_t>(t)];
  }
  return grid;
}

std::vector<TimeRange> random_intervals(test::Random& random, int64_t most) {
  std::vector<TimeRange> intervals(static_cast<size_t>(random.integer(0, most)));
  for (TimeRange& x : intervals) {
    x.begin = random.integer(0, kTime);
    x.end = random.integer(x.begin, kTime);  // may be empty
  }
  return intervals;
}

TEST(Intervals, ByHand) {
  EXPECT_EQ((std::vector<TimeRange>{{1, 6}, {8, 9}}),
            union_of({{8, 9}, {1, 3}, {4, 4}, {3, 5}, {2, 6}}));
  EXPECT_EQ((TimeRange{3, 5}), intersection({1, 5}, {3, 9}));
  EXPECT_EQ(0, intersection({1, 3}, {5, 9}).length());

  // One hidden, one with 4 ns behind the computation, two that share what they have in common.
  const std::vector<TimeRange> compute{{0, 10}, {20, 30}};
  const std::vector<TimeRange> comm{{2, 8}, {26, 34}, {40, 46}, {43, 48}};
  EXPECT_EQ((std::vector<double>{0, 4, 3 + 1.5, 1.5 + 2}), exposed(comm, compute));
  EXPECT_EQ(4, overlap(comm[1], compute));
}

TEST(Intervals, AgreeWithAGrid) {
  test::Random random(5101);
  for (int round = 0; round < 2000; ++round) {
    SCOPED_TRACE(round);
    const std::vector<TimeRange> compute = random_intervals(random, 8);
    const std::vector<TimeRange> comm = random_intervals(random, 6);
    const Grid computes = grid_of(compute), communicates = grid_of(comm);

    const std::vector<TimeRange> covered = union_of(compute);
    for (size_t i = 0; i < covered.size(); ++i) {
      EXPECT_LT(covered[i].begin, covered[i].end);
      if (i > 0) {
        EXPECT_LT(covered[i - 1].end, covered[i].begin);
      }
    }
    Grid once = computes;
    for (int& n : once) n = std::min(n, 1);
    ASSERT_EQ(once, grid_of(covered));

    const std::vector<double> found = exposed(comm, covered);
    ASSERT_EQ(comm.size(), found.size());
    double sum = 0;
    for (size_t i = 0; i < comm.size(); ++i) {
      double outside = 0;
      int64_t inside = 0;
      for (int64_t t = comm[i].begin; t < comm[i].end; ++t) {
        const auto at = static_cast<size_t>(t);
        if (computes[at] > 0) {
          ++inside;
        } else {
          outside += 1.0 / communicates[at];
        }
      }
      EXPECT_EQ(inside, overlap(comm[i], covered));
      EXPECT_NEAR(outside, found[i], 1e-9);  // sums of up to 60 quotients
      sum += found[i];
    }
    int64_t bare = 0;
    for (size_t t = 0; t < communicates.size(); ++t) {
      bare += communicates[t] > 0 && computes[t] == 0 ? 1 : 0;
    }
    EXPECT_NEAR(static_cast<double>(bare), sum, 1e-9);
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
