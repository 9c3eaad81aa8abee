// Slices against the set of their elements, one by one.
#include "trainer/base/slice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace qstep::trainer {
namespace {

// What the slice holds, as elements of the whole tensor, in its order.
std::vector<int64_t> elements_of(const Slice& s) {
  std::vector<int64_t> elements;
  for (int64_t i = 0; i < s.block_rows * s.block_cols; ++i) {
    if (i < s.first || i >= s.first + s.count) continue;
    const int64_t row = s.first_row + i / s.block_cols, col = s.first_col + i % s.block_cols;
    elements.push_back(row * s.cols + col);
  }
  return elements;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  // In [low, high].
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }
  Slice slice(int64_t rows, int64_t cols) {
    const int64_t first_row = between(0, rows - 1), first_col = between(0, cols - 1);
    const Slice s = block(rows, cols, first_row, first_col, between(1, rows - first_row),
                          between(1, cols - first_col));
    const int64_t first = between(0, s.count - 1);
    return run_of(s, first, between(1, s.count - first));
  }

 private:
  std::mt19937_64 engine_;
};

TEST(Slice, CommonRunsAreTheCommonElements) {
  Random random(11);
  for (int trial = 0; trial < 5000; ++trial) {
    const int64_t rows = random.between(1, 6), cols = random.between(1, 6);
    const Slice a = random.slice(rows, cols), b = random.slice(rows, cols);
    const std::vector<int64_t> of_a = elements_of(a), of_b = elements_of(b);
    size_t n_common = 0;
    int64_t end_a = -1, end_b = -1;
    for_each_common_run(a, b, [&](int64_t in_a, int64_t in_b, int64_t n) {
      ASSERT_GT(n, 0);
      EXPECT_GT(in_a, end_a - 1) << "out of order";
      EXPECT_FALSE(in_a == end_a && in_b == end_b) << "could have been one run";
      for (int64_t i = 0; i < n; ++i, ++n_common) {
        ASSERT_EQ(of_a.at(static_cast<size_t>(in_a + i)), of_b.at(static_cast<size_t>(in_b + i)));
      }
      end_a = in_a + n, end_b = in_b + n;
    });
    std::vector<int64_t> common;
    std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(),
                          std::back_inserter(common));
    ASSERT_EQ(common.size(), n_common);
  }
}

TEST(Slice, WholeRowsAreOneRun) {
  int n_runs = 0;
  for_each_common_run(whole(50, 7), run_of(whole(50, 7), 10, 300),
                      [&](int64_t in_a, int64_t in_b, int64_t n) {
                        ++n_runs;
                        EXPECT_EQ(10, in_a);
                        EXPECT_EQ(0, in_b);
                        EXPECT_EQ(300, n);
                      });
  EXPECT_EQ(1, n_runs);
}

TEST(Slice, CoverProblemIsTheFirstElementNotHeldOnce) {
  Random random(12);
  int n_whole = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    const int64_t rows = random.between(1, 4), cols = random.between(1, 4);
    std::vector<Slice> slices(static_cast<size_t>(random.between(0, 4)));
    for (Slice& s : slices) s = random.slice(rows, cols);
    std::vector<int> holders(static_cast<size_t>(rows * cols));
    for (const Slice& s : slices) {
      for (const int64_t element : elements_of(s)) ++holders[static_cast<size_t>(element)];
    }
    const auto expected =
        std::find_if(holders.begin(), holders.end(), [](int n) { return n != 1; });
    const auto problem = cover_problem(slices, rows, cols);
    ASSERT_EQ(expected != holders.end(), problem.has_value());
    if (!problem) {
      ++n_whole;
      continue;
    }
    const int64_t element = expected - holders.begin();
    EXPECT_EQ(element / cols, problem->row);
    EXPECT_EQ(element % cols, problem->col);
    EXPECT_EQ(*expected > 1, problem->twice.has_value());
    if (!problem->twice) continue;
    const auto [a, b] = *problem->twice;
    EXPECT_NE(a, b);
    for (const size_t i : {a, b}) {
      const std::vector<int64_t> held = elements_of(slices[i]);
      EXPECT_TRUE(std::binary_search(held.begin(), held.end(), element));
    }
  }
  EXPECT_GT(n_whole, 100);
}

TEST(Slice, KnowsWhatLiesOutside) {
  EXPECT_TRUE(whole(3, 4).valid());
  EXPECT_TRUE(block(3, 4, 2, 3, 1, 1).valid());
  EXPECT_FALSE(block(3, 4, 2, 3, 2, 1).valid());
  EXPECT_FALSE(block(3, 4, 0, -1, 1, 1).valid());
  EXPECT_FALSE(block(3, 4, 0, 0, 0, 4).valid());
  EXPECT_FALSE(run_of(whole(3, 4), 5, 0).valid());
  Slice beyond = whole(3, 4);
  beyond.first = 1;
  EXPECT_FALSE(beyond.valid());
  EXPECT_FALSE(possible_shape(int64_t{1} << 40, int64_t{1} << 40));
  EXPECT_THROW(run_of(whole(3, 4), 5, 8), ops::Error);
}

}  // namespace
}  // namespace qstep::trainer
