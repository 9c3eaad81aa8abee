#include "trainer/bench/bench_dgxc.h"

#include <gtest/gtest.h>

#include <numeric>

#include "ops/error.h"
#include "trainer/bench/bench_workload.h"

namespace qstep::trainer {
namespace {

// Steps 35 to 44, counted from 1, both ends included.
TEST(Dgxc, TheMeanOfTheTenSteps) {
  std::vector<double> ms(50);
  std::iota(ms.begin(), ms.end(), 1.0);
  EXPECT_DOUBLE_EQ(dgxc_mean(ms), 39.5);
  for (const size_t outside : {33u, 44u}) {
    ms[outside] = 1e9;
    EXPECT_DOUBLE_EQ(dgxc_mean(ms), 39.5);
  }
  ms[34] += 10;
  ms[43] += 10;
  EXPECT_DOUBLE_EQ(dgxc_mean(ms), 41.5);
  ms.pop_back();
  EXPECT_THROW(dgxc_mean(ms), ops::Error);
}

TEST(Dgxc, RatesFollowFromTheTime) {
  BenchWorkload workload;
  workload.model = "llama-1m";
  workload.batch = 1;
  workload.seq_len = 16;
  const Config config = workload.config("bf16");
  const auto world = parallel::make_single();
  const DgxcResult r = bench_dgxc(config, *world);
  EXPECT_DOUBLE_EQ(r.s_per_iteration, 1e-3 * dgxc_mean(r.step_ms));
  EXPECT_DOUBLE_EQ(r.tokens_per_s * r.s_per_iteration, 16);
  const auto flops = [&](AttentionCount count) {
    return flops_per_token(config.model, 16, count) * r.tokens_per_s;
  };
  EXPECT_DOUBLE_EQ(r.causal_flops_per_s, flops(AttentionCount::kCausal));
  EXPECT_DOUBLE_EQ(r.full_flops_per_s, flops(AttentionCount::kFull));
}

}  // namespace
}  // namespace qstep::trainer
