// The tree, by simulation: sums are texts such as "((0+1)+2)", so that their shape can be compared.
#include "parallel/reduction_tree.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace qstep::parallel {
namespace {

struct Simulation {
  std::string sum;
  int64_t buffers = 0;  // most that were alive at once
};

// Leaves first, first + 1, ... as a rank that owns n of them adds them.
Simulation simulate(int64_t first, int64_t n) {
  std::vector<std::string> stack;
  Simulation result;
  for (int64_t micro = 0; micro < n; ++micro) {
    stack.push_back(std::to_string(first + micro));
    result.buffers = std::max(result.buffers, static_cast<int64_t>(stack.size()));
    for (int64_t i = merges_after(micro, n); i > 0; --i) {
      if (stack.size() < 2) {
        ADD_FAILURE() << "a merge without two sums, leaf " << micro << " of " << n;
        return result;
      }
      const std::string right = stack.back();
      stack.pop_back();
      stack.back() = "(" + stack.back() + "+" + right + ")";
    }
  }
  EXPECT_EQ(1u, stack.size()) << n << " leaves";
  result.sum = stack.front();
  return result;
}

constexpr int64_t kMostLeaves = 70;

TEST(ReductionTree, AddsEveryLeafOnceInOrder) {
  for (int64_t n = 1; n <= kMostLeaves; ++n) {
    std::string leaves, expected;
    for (const char c : simulate(0, n).sum) {
      if (c != '(' && c != ')') leaves += c;
    }
    for (int64_t i = 0; i < n; ++i) expected += (i == 0 ? "" : "+") + std::to_string(i);
    EXPECT_EQ(expected, leaves);
  }
}

TEST(ReductionTree, NeverNeedsMoreBuffersThanItSays) {
  for (int64_t n = 1; n <= kMostLeaves; ++n) {
    EXPECT_EQ(tree_buffers(n), simulate(0, n).buffers) << n << " leaves";
  }
}

TEST(ReductionTree, HasTheShapeOfTheBook) {
  EXPECT_EQ("0", simulate(0, 1).sum);
  EXPECT_EQ("(0+1)", simulate(0, 2).sum);
  EXPECT_EQ("((0+1)+2)", simulate(0, 3).sum);
  EXPECT_EQ("((0+1)+(2+3))", simulate(0, 4).sum);
  EXPECT_EQ("(((0+1)+(2+3))+(4+5))", simulate(0, 6).sum);
  EXPECT_EQ("(((0+1)+(2+3))+((4+5)+6))", simulate(0, 7).sum);
}

// A rank that owns an aligned run of 2^s leaves computes a node of the whole tree.
TEST(ReductionTree, AlignedRunsAreSubtrees) {
  for (int64_t n = 1; n <= kMostLeaves; ++n) {
    const std::string whole = simulate(0, n).sum;
    for (int64_t size = 1; size <= n; size *= 2) {
      for (int64_t first = 0; first + size <= n; first += size) {
        EXPECT_NE(std::string::npos, whole.find(simulate(first, size).sum))
            << first << " to " << first + size << " of " << n;
      }
    }
  }
}

// 2^r ranks with 2^s leaves each: what they computed, added as a tree of ranks, is the whole tree.
TEST(ReductionTree, RanksMakeTheSameTree) {
  for (const int64_t n : {2, 4, 8, 16, 32}) {
    const std::string whole = simulate(0, n).sum;
    for (int64_t ranks = 1; ranks <= n; ranks *= 2) {
      std::vector<std::string> sums;
      for (int64_t r = 0; r < ranks; ++r) sums.push_back(simulate(r * (n / ranks), n / ranks).sum);
      while (sums.size() > 1) {
        std::vector<std::string> pairs;
        for (size_t i = 0; i < sums.size(); i += 2) {
          pairs.push_back("(" + sums[i] + "+" + sums[i + 1] + ")");
        }
        sums = pairs;
      }
      EXPECT_EQ(whole, sums.front()) << ranks << " ranks";
    }
  }
}

}  // namespace
}  // namespace qstep::parallel
