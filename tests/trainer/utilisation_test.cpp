// Utilisation against values worked out by hand.
#include "trainer/plan/utilisation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "trainer/plan/step_model.h"

namespace qstep::trainer {
namespace {

Config config_of(const std::vector<std::string>& words) { return load_model_words(words).config; }

Config llama8b(const std::string& recipe) {
  return config_of({"llama-8b", "train.seq_len=8192", "train.micro_batch=1", "train.global_batch=8",
                    "precision.recipe=" + recipe, "parallel.reduction=rank"});
}

// One number alone: every product in BF16 at 1 TFLOP/s.
MachineModel bf16_only(double memory_bytes_per_s = 0) {
  MachineModel m;
  m.products[static_cast<size_t>(ProductFormat::kBf16)] = {
      .peak = 1e12, .share = 1, .source = "made up"};
  m.memory.peak = memory_bytes_per_s;
  return m;
}

TEST(Utilisation, FlopsOfGpt2PerTokenByHand) {
  const StepWork gpt2 = step_work(config_of({"gpt2-124m", "train.seq_len=1024"}), 1);
  // 12 blocks of 12 * 768^2 weights and 50257 * 768 of the head, six flops each, and attention of
  // 6 * 12 * 768 * 1025 (causal) or 12 * 12 * 768 * 1024 (full).
  const double matrices = 6.0 * (12.0 * 12 * 768 * 768 + 50257.0 * 768);
  EXPECT_EQ(matrices, 741'192'192);
  EXPECT_DOUBLE_EQ(gpt2.causal_flops / gpt2.step_tokens, 741'192'192 + 56'678'400.0);
  EXPECT_DOUBLE_EQ(gpt2.full_flops / gpt2.step_tokens, 741'192'192 + 113'246'208.0);
}

TEST(Utilisation, FlopsOfLlama8bPerTokenByHand) {
  const StepWork llama = step_work(llama8b("bf16"), 1);
  // A block: q and output 2 * 4096 * 4096, k and v 2 * 4096 * 1024, MLP 3 * 4096 * 14336.
  const double blocks = 6.0 * 32 * (2.0 * 4096 * 4096 + 2.0 * 4096 * 1024 + 3.0 * 4096 * 14336);
  const double head = 6.0 * 128256 * 4096;
  const double causal = blocks + head + 6.0 * 32 * 4096 * 8193;
  const double full = blocks + head + 12.0 * 32 * 4096 * 8192;
  EXPECT_DOUBLE_EQ(llama.causal_flops / llama.step_tokens, causal);
  EXPECT_DOUBLE_EQ(llama.full_flops / llama.step_tokens, full);
  EXPECT_NEAR(causal, 51.47e9, 0.005e9);
  EXPECT_NEAR(full, 57.91e9, 0.005e9);
}

// step_time_report.md section 5: one H200 (989 and 1979 TFLOP/s), blocks in FP8, head and attention
// in BF16.
TEST(Utilisation, TheWorkedExample) {
  const MachineModel& h200 = machine_model("h200");
  const StepWork work = step_work(llama8b("fp8-current"), 1);
  const LeastTime fp8 = least_time(work, h200);
  const LeastTime bf16 = least_time(step_work(llama8b("bf16"), 1), h200);
  const double tokens = work.step_tokens;
  EXPECT_NEAR(fp8.flops[static_cast<size_t>(ProductFormat::kFp8)] / tokens, 41.88e9, 0.005e9);
  EXPECT_NEAR(fp8.flops[static_cast<size_t>(ProductFormat::kBf16)] / tokens, 3.15e9 + 6.44e9,
              0.01e9);
  EXPECT_NEAR(fp8.sol_s / tokens, 30.86e-6, 0.015e-6);  // 41.88 / 1979 + 9.59 / 989 = 30.86
  EXPECT_NEAR(bf16.sol_s / tokens, 52.02e-6, 0.03e-6);  // 51.47 / 989 = 52.04
  EXPECT_NEAR(fp8.largest_gain(), 1.69, 0.005);
  EXPECT_DOUBLE_EQ(bf16.largest_gain(), 1);
  EXPECT_DOUBLE_EQ(fp8.bf16_s, bf16.sol_s);
  const Utilisation used = utilisation(fp8, tokens / 11000);
  EXPECT_NEAR(used.causal_flops_per_s, 566.2e12, 0.1e12);
  EXPECT_NEAR(used.full_flops_per_s, 637.1e12, 0.1e12);
  EXPECT_NEAR(used.mfu_bf16, 0.572, 0.0005);
  EXPECT_NEAR(used.sol, 0.339, 0.0005);
}

TEST(Utilisation, HfuCountsTheScoresOfBackwardAgain) {
  const LeastTime least = least_time(step_work(llama8b("bf16"), 1), machine_model("h200"));
  const double attention = 8 * 8192 * 6.0 * 32 * 4096 * 8193;
  EXPECT_DOUBLE_EQ(least.recomputed_flops, attention / 6);  // 7/6 of attention's flops
  const Utilisation used = utilisation(least, 1);
  EXPECT_NEAR(used.hfu / used.mfu_bf16, 1 + attention / 6 / least.causal_flops, 1e-12);
}

TEST(Utilisation, AnEmulatedFormatCountsAtThePeakOfWhatRuns) {
  const MachineModel& h200 = machine_model("h200");
  const LeastTime nvfp4 = least_time(step_work(llama8b("nvfp4"), 1), h200);
  EXPECT_DOUBLE_EQ(nvfp4.sol_s, nvfp4.bf16_s);
  EXPECT_EQ(nvfp4.flops[static_cast<size_t>(ProductFormat::kNvfp4)], 0);
  const LeastTime native = least_time(step_work(llama8b("nvfp4"), 1), machine_model("gb300"));
  // 27 of 32 blocks at six times the rate of BF16 (14700 and 2450).
  const double blocks = 41.88e9 * 27 / 32, rest = 51.47e9 - blocks;
  EXPECT_NEAR(native.largest_gain(), 51.47e9 / (blocks / 6 + rest), 0.002);
}

TEST(Utilisation, RanksShareTheFlops) {
  Config config = llama8b("bf16");
  const MachineModel& h200 = machine_model("h200");
  const double one = least_time(step_work(config, 1), h200).sol_s;
  EXPECT_DOUBLE_EQ(least_time(step_work(config, 8), h200).sol_s, one / 8);
  config.parallel.tensor = 4;
  EXPECT_NEAR(least_time(step_work(config, 8), h200).sol_s, one / 8, 1e-12 * one);
}

TEST(Utilisation, PhasesOfARecipeCountInTheirOwnFormats) {
  Config config = llama8b("nvfp4");
  config.train.steps = 100;
  const MachineModel& gb300 = machine_model("gb300");
  const RunLeastTimes plain(config, 1, gb300);
  EXPECT_DOUBLE_EQ(plain.at(1).sol_s, plain.at(100).sol_s);
  set_recipe(config, "nvfp4-late-bf16");  // fprop in BF16 from 82 % on
  const RunLeastTimes switched(config, 1, gb300);
  constexpr auto kNvfp4 = static_cast<size_t>(ProductFormat::kNvfp4);
  EXPECT_DOUBLE_EQ(switched.at(1).sol_s, plain.at(1).sol_s);
  EXPECT_GT(switched.at(100).sol_s, switched.at(1).sol_s);
  // Of fprop, dgrad and wgrad two are left.
  EXPECT_DOUBLE_EQ(switched.at(100).flops[kNvfp4], switched.at(1).flops[kNvfp4] * 2 / 3);
}

TEST(Utilisation, MemoryCountsWhereItTakesLonger) {
  const StepWork work = step_work(config_of({"gpt2-124m", "train.seq_len=1024"}), 1);
  const LeastTime fast = least_time(work, bf16_only(1e30));
  // The products alone, those of the head with the padding of its vocabulary.
  EXPECT_GT(fast.sol_mem_s, fast.sol_s);
  EXPECT_NEAR(fast.sol_mem_s, fast.sol_s, 1e-3 * fast.sol_s);
  const LeastTime slow = least_time(work, bf16_only(1));
  double bytes = work.attention_forward_bytes + work.attention_backward_bytes;
  for (const ProductWork& p : work.products) bytes += p.count * product_bytes(p, 2, false);
  for (const MemoryWork& pass : work.passes) bytes += pass.bytes;
  EXPECT_DOUBLE_EQ(slow.sol_mem_s, bytes);
  EXPECT_DOUBLE_EQ(slow.sol_s, fast.sol_s);
}

TEST(Utilisation, WithoutAPeakThereIsARateAndNoShare) {
  const LeastTime least = least_time(step_work(llama8b("nvfp4"), 1), MachineModel{});
  const Utilisation used = utilisation(least, 2);
  EXPECT_DOUBLE_EQ(used.causal_flops_per_s, least.causal_flops / 2);
  EXPECT_TRUE(std::isnan(used.mfu_bf16));
  EXPECT_TRUE(std::isnan(used.hfu));
  EXPECT_TRUE(std::isnan(used.sol));
  EXPECT_TRUE(std::isnan(used.sol_mem));
  EXPECT_TRUE(std::isnan(utilisation(least_time(step_work(llama8b("bf16"), 1), bf16_only()), 2)
                             .sol_mem));  // no bandwidth
}

TEST(Utilisation, ThePredictedStepIsHeldAgainstTheSame) {
  const MachineModel& h200 = machine_model("h200");
  const StepTime t = predict_step(llama8b("fp8-current"), h200, 1);
  EXPECT_DOUBLE_EQ(t.used().sol, t.least.sol_s / t.seconds());
  EXPECT_LT(t.used().sol, t.used().sol_mem);
  EXPECT_LT(t.used().sol_mem, 1);
}

}  // namespace
}  // namespace qstep::trainer
