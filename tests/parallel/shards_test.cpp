#include "parallel/shards.h"

#include <gtest/gtest.h>

namespace qstep::parallel {
namespace {

TEST(Shards, EvenPartsCoverEverythingOnceAndDifferByOneAtMost) {
  for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
    for (const int64_t n_parts : {1, 2, 3, 4, 7, 64}) {
      int64_t end = 0;
      for (int64_t part = 0; part < n_parts; ++part) {
        const Range range = even_part(n, n_parts, part);
        EXPECT_EQ(end, range.begin);
        end = range.end;
        EXPECT_LE(n / n_parts, range.size());
        EXPECT_GE((n + n_parts - 1) / n_parts, range.size());
      }
      EXPECT_EQ(n, end) << n << " in " << n_parts;
    }
  }
  EXPECT_EQ((Range{2, 4}), even_part(7, 3, 1));
  EXPECT_THROW(even_part(7, 3, 3), ops::Error);
  EXPECT_THROW(even_part(-1, 3, 0), ops::Error);
}

// The largest models have 2^39 parameters, the largest machines 2^17 ranks.
TEST(Shards, EvenPartsOfTheLargestModelsAreExact) {
  const int64_t n = int64_t{1} << 39, ranks = int64_t{1} << 17;
  EXPECT_EQ((Range{n - n / ranks, n}), even_part(n, ranks, ranks - 1));
}

TEST(Shards, BoundsFallOnWholeUnits) {
  EXPECT_EQ((std::vector<int64_t>{0, 3, 6, 10}), even_bounds(10, 3));
  EXPECT_EQ((std::vector<int64_t>{0, 4096, 8192, 10000}), even_bounds(10000, 3, 4096));
  EXPECT_EQ((std::vector<int64_t>{0, 0, 0, 0, 5}), even_bounds(5, 4, 4096));
  EXPECT_EQ((std::vector<int64_t>{0, 4096, 12288}), even_bounds(12288, 2, 4096));
  EXPECT_EQ((std::vector<int64_t>{0, 0, 0}), even_bounds(0, 2, 4096));
  EXPECT_THROW(even_bounds(10, 0), ops::Error);
  EXPECT_THROW(even_bounds(10, 2, 0), ops::Error);
}

TEST(Shards, IntersectionIsWhatBothHold) {
  EXPECT_EQ((Range{3, 5}), intersection({0, 5}, {3, 9}));
  EXPECT_EQ((Range{3, 5}), intersection({3, 9}, {0, 5}));
  EXPECT_EQ((Range{3, 4}), intersection({3, 4}, {0, 9}));
  EXPECT_TRUE(intersection({0, 3}, {3, 5}).empty());
  EXPECT_TRUE(intersection({0, 3}, {7, 9}).empty());
  EXPECT_EQ(0, intersection({7, 9}, {0, 3}).size());
  EXPECT_TRUE(intersection({2, 2}, {0, 9}).empty());
}

}  // namespace
}  // namespace qstep::parallel
