// What qstep plan counts of a GPU's memory beside the tensors, against formulas of the dimensions.
#include "trainer/machine_memory.h"

#include <gtest/gtest.h>

#include "ops/attention_part.h"

namespace qstep::trainer {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kBatch = 4, kSeqLen = 2048, kTokens = kBatch * kSeqLen;

// llama-1b: C 2048, H 32, K 8, D 64, F 8192.
Config config_of(const std::string& recipe, const std::string& preset = "llama-1b") {
  return load_config("", std::vector<std::string>{"model.preset=" + preset, "train.seq_len=2048",
                                                  "train.micro_batch=4", "train.global_batch=32",
                                                  "precision.recipe=" + recipe})
      .config;
}

int64_t bytes_of(const std::vector<MemoryRow>& rows, std::string_view owner) {
  for (const MemoryRow& row : rows) {
    if (row.owner == owner) return row.bytes;
  }
  return -1;
}
int64_t scratch_on(const char* machine, const Config& config) {
  return bytes_of(machine_memory(config, machine_model(machine)), kGpuScratchOwner);
}

// The table of ops/README.md, "Attention through cuDNN".
TEST(AttentionScratch, IsWhatTheLibraryWants) {
  const ops::AttentionShape shape{
      .batch = 4, .seq_len = 2048, .n_heads = 16, .n_kv_heads = 4, .head_dim = 64};
  const auto workspace = [&](const ops::AttentionShape& s, int capability) {
    return expected_attention_workspace(attention_plan_key(s, ops::Direction::kBackward),
                                        capability);
  };
  EXPECT_EQ(544 * kMiB, workspace(shape, 90));
  EXPECT_EQ(64 * kMiB, workspace(shape, 100));
  EXPECT_EQ(64 * kMiB, workspace(shape, 103));
  EXPECT_EQ(544 * kMiB, workspace(shape, 120));
  ops::AttentionShape own_keys = shape;
  own_keys.n_kv_heads = 16;
  EXPECT_EQ(512 * kMiB, workspace(own_keys, 90));
  EXPECT_EQ(0, workspace(own_keys, 100));
  EXPECT_EQ(0,
            expected_attention_workspace(attention_plan_key(shape, ops::Direction::kForward), 90));
}

TEST(AttentionScratch, StaysBelowItsLimitInParts) {
  const ops::AttentionShape shape{
      .batch = 8, .seq_len = 4096, .n_heads = 32, .n_kv_heads = 8, .head_dim = 128};
  const auto whole = attention_plan_key(shape, ops::Direction::kBackward);
  EXPECT_GT(expected_attention_workspace(whole, 90), 8 * ops::kAttentionScratchLimit);
  const int64_t scratch = expected_attention_scratch(shape, ops::Direction::kBackward, 90);
  EXPECT_LE(scratch, ops::kAttentionScratchLimit + attention_delta_bytes(whole));
  EXPECT_GT(scratch, ops::kAttentionScratchLimit / 3);
  EXPECT_EQ(whole, part_within(whole, ops::kAttentionScratchLimit, ops::kAttentionScratchLimit));
  EXPECT_EQ(4,
            part_within(whole, ops::kAttentionScratchLimit + 1, ops::kAttentionScratchLimit).batch);
}

TEST(MachineMemory, HasTheScratchOfTheGpu) {
  const Config config = config_of("bf16");
  // ds of a sequence is 256 MiB, its dk and dv 16: three would fit 1 GiB, parts are equal.
  const int64_t delta = 4 * 2 * 32 * kSeqLen;
  EXPECT_EQ(32 * kMiB + 2 * (256 + 16) * kMiB + delta, scratch_on("h200", config));
  EXPECT_EQ(32 * kMiB + 8 * kTokens * 2048 + 2 * delta, scratch_on("b200", config));
  const auto rows = machine_memory(config, machine_model("h200"));
  EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end(), [](const MemoryRow& a, const MemoryRow& b) {
    return a.bytes > b.bytes;
  }));
}

// FP32 goes to the row kernels: no scratch of the library's, less than the sums over tokens.
TEST(MachineMemory, KnowsWhoComputesAttention) {
  const int64_t sums = 4 * 512 * 2048;
  EXPECT_EQ(32 * kMiB + sums, scratch_on("h200", config_of("fp32")));
}

// Sums of the largest product, [N, 2 F], and of its tile, where factors per tile are applied in
// passes of their own.
TEST(MachineMemory, HasTheSumsOfTiledProducts) {
  const Config config = config_of("fp8-block-fp32");
  EXPECT_EQ(32 * kMiB + 2 * 4 * kTokens * 2 * 8192, scratch_on("b200", config));
  EXPECT_LT(scratch_on("h200", config), scratch_on("b200", config));  // native there
}

TEST(MachineMemory, HoldsCodesOfNativeProducts) {
  const auto operands = [](const char* machine, const char* recipe) {
    return bytes_of(machine_memory(config_of(recipe), machine_model(machine)),
                    "quantized operands");
  };
  const auto decoded = [](const char* recipe) {
    return bytes_of(training_memory(config_of(recipe)), "quantized operands");
  };
  EXPECT_EQ(decoded("nvfp4"), operands("h200", "nvfp4"));
  EXPECT_LT(operands("b200", "nvfp4"), decoded("nvfp4") / 2);
  EXPECT_LT(operands("h200", "fp8-current"), decoded("fp8-current") * 3 / 4);
  EXPECT_EQ(decoded("mxfp4"), operands("b200", "mxfp4"));
}

TEST(MachineMemory, IsThatOfTheTensorsWhereTheGpuIsNotKnown) {
  MachineModel machine = machine_model("h200");
  machine.capability = 0;
  EXPECT_EQ(-1, bytes_of(machine_memory(config_of("bf16"), machine), kGpuScratchOwner));
}

}  // namespace
}  // namespace qstep::trainer
