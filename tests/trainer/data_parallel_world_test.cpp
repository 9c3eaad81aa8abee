// The gradients of real processes on their way to the ranks that own them.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "parallel/reduction_tree.h"
#include "tests/parallel/world_main.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/step/data_parallel.h"

namespace qstep::trainer::testing {
namespace {

using ops::Bf16;
using parallel::Comm;
using parallel::world;

// What rank `rank` has computed: magnitudes over twenty binades, of either sign, zeros among them.
std::vector<float> gradient_of(int rank, int64_t total) {
  test::Random random(static_cast<uint64_t>(900 + rank));
  std::vector<float> g(static_cast<size_t>(total));
  for (float& x : g) {
    const int binade = static_cast<int>(random.integer(-20, 0));
    x = random.integer(0, 15) == 0 ? 0.0f
                                   : std::ldexp(static_cast<float>(random.uniform(-1, 1)), binade);
  }
  return g;
}

std::vector<std::vector<float>> gradients_of(int n_ranks, int64_t total) {
  std::vector<std::vector<float>> all;
  for (int rank = 0; rank < n_ranks; ++rank) all.push_back(gradient_of(rank, total));
  return all;
}

float rounded(float x) { return precision::to_float(precision::to_bf16(x)); }

// One sum in FP32, in the tree of reduction_tree.h.
float tree_sum(const std::vector<float>& leaves) {
  std::vector<float> stack;
  const auto n = static_cast<int64_t>(leaves.size());
  for (int64_t i = 0; i < n; ++i) {
    stack.push_back(leaves[static_cast<size_t>(i)]);
    for (int64_t m = parallel::merges_after(i, n); m > 0; --m) {
      const float top = stack.back();
      stack.pop_back();
      stack.back() += top;
    }
  }
  return stack.back();
}

struct Reduced {
  ShardPlan plan;
  std::vector<float> gradient;  // of this rank, FP32
  int64_t bytes_sent = 0;
};

// Every bucket, last one first as in a backward pass.
Reduced reduce(GradientType type, OptimizerState state) {
  Comm& comm = world();
  const auto ops = ops::make_cpu_ops();
  Reduced result;
  result.plan = plan_shards(recipe_model(), state, comm.size(), comm.rank());
  const ShardPlan& plan = result.plan;
  result.gradient = gradient_of(comm.rank(), plan.total);
  std::vector<Bf16> weight(result.gradient.size());
  const auto lay_out = [&](ops::Arena& arena) {
    return lay_out_staging(arena, plan, type, comm.size());
  };
  ops::Arena measure;
  lay_out(measure);
  const ops::Buffer buffer = ops->allocate(measure.peak_bytes());
  ops::Arena place(buffer);
  DataParallel ranks(*ops, comm, plan, state, ops::view(std::span(result.gradient)),
                     ops::view(std::span(weight)), lay_out(place));
  const int64_t before = comm.times().bytes_sent;
  for (size_t bucket = plan.buckets.size(); bucket-- > 0;) {
    ranks.reduce_gradient(static_cast<int64_t>(bucket));
  }
  Timeline timer;
  timer.start();
  ranks.wait_for_gradients(timer);
  result.bytes_sent = comm.times().bytes_sent - before;
  return result;
}

class Bf16GradientsOf : public ::testing::TestWithParam<OptimizerState> {};

// bf16(sum of bf16(g)), added in FP32 in the tree: to the bit, wherever the rank owns it.
TEST_P(Bf16GradientsOf, AreRoundedSummedAndRoundedOnce) {
  const int n_ranks = world().size();
  const Reduced found = reduce(GradientType::kBf16, GetParam());
  const auto all = gradients_of(n_ranks, found.plan.total);
  int64_t wrong = 0;
  for (const OwnedRun& run : found.plan.owned) {
    for (int64_t i = run.first; i < run.first + run.size; ++i) {
      const auto at = static_cast<size_t>(i);
      std::vector<float> leaves;
      for (const auto& g : all) leaves.push_back(n_ranks == 1 ? g[at] : rounded(g[at]));
      const float sum = tree_sum(leaves);
      const float expected = n_ranks == 1 ? sum : rounded(sum);
      wrong += std::bit_cast<uint32_t>(expected) != std::bit_cast<uint32_t>(found.gradient[at]);
    }
  }
  EXPECT_EQ(0, wrong);
}

// Against the exact sum: a rounding to BF16 of each term and of the sum, and to FP32 of each
// addition between them.
TEST_P(Bf16GradientsOf, AreNearTheExactSum) {
  constexpr double kUnitBf16 = 0x1p-8, kUnitFp32 = 0x1p-24;  // of rounding to nearest
  const int n_ranks = world().size();
  const Reduced found = reduce(GradientType::kBf16, GetParam());
  const auto all = gradients_of(n_ranks, found.plan.total);
  int64_t beyond = 0, rounds = 0;
  for (const OwnedRun& run : found.plan.owned) {
    for (int64_t i = run.first; i < run.first + run.size; ++i) {
      const auto at = static_cast<size_t>(i);
      double exact = 0, magnitudes = 0;
      for (const auto& g : all) {
        exact += static_cast<double>(g[at]);
        magnitudes += std::abs(static_cast<double>(g[at]));
      }
      const double of_terms =
          (kUnitBf16 + (n_ranks - 1) * kUnitFp32 * (1 + kUnitBf16)) * magnitudes;
      const double bound = n_ranks == 1 ? 0 : of_terms + kUnitBf16 * (std::abs(exact) + of_terms);
      const double error = std::abs(static_cast<double>(found.gradient[at]) - exact);
      beyond += error > bound;
      rounds += error > kUnitFp32 * n_ranks * magnitudes;
    }
  }
  EXPECT_EQ(0, beyond);
  EXPECT_EQ(n_ranks > 1, rounds > 0);  // FP32 would not err so much
}

INSTANTIATE_TEST_SUITE_P(State, Bf16GradientsOf,
                         ::testing::Values(OptimizerState::kSharded, OptimizerState::kReplicated),
                         [](const auto& test) {
                           return test.param == OptimizerState::kSharded ? "Sharded" : "Replicated";
                         });

TEST(Bf16Gradients, AreHalfTheBytes) {
  const Reduced fp32 = reduce(GradientType::kFp32, OptimizerState::kSharded);
  const Reduced bf16 = reduce(GradientType::kBf16, OptimizerState::kSharded);
  EXPECT_EQ(world().size() > 1, fp32.bytes_sent > 0);
  EXPECT_EQ(fp32.bytes_sent, 2 * bf16.bytes_sent);
}

}  // namespace
}  // namespace qstep::trainer::testing
