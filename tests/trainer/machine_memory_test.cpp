// What qstep plan counts of a GPU's memory beside the tensors, against formulas of the dimensions.
#include "trainer/step/machine_memory.h"

#include <gtest/gtest.h>

#include "ops/attention/attention_part.h"
#include "tests/support/wrapped_ops.h"

namespace qstep::trainer {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kBatch = 4, kSeqLen = 2048, kTokens = kBatch * kSeqLen;

// llama-1b: C 2048, H 32, K 8, D 64, F 8192.
Config config_of(const std::string& recipe) {
  return load_config("", std::vector<std::string>{"model.preset=llama-1b", "train.seq_len=2048",
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

// Their gradients are sums over tokens, of the layer up 2 F of them.
TEST(MachineMemory, HasTheSumsOfBiases) {
  Config config = config_of("fp32");
  config.model.bias = true;
  EXPECT_EQ(32 * kMiB + 4 * 512 * 2 * 8192, scratch_on("h200", config));
}

TEST(MachineMemory, IsThatOfTheTensorsWhereTheGpuIsNotKnown) {
  MachineModel machine = machine_model("h200");
  machine.capability = 0;
  const auto rows = machine_memory(config_of("bf16"), machine, 2);
  for (const char* const owner : {kGpuScratchOwner, kStagingOwner, kNcclOwner}) {
    EXPECT_EQ(-1, bytes_of(rows, owner)) << owner;
  }
}

TEST(MachineMemory, HasWhatExchangesBetweenRanksTake) {
  Config config = config_of("bf16");
  const auto rows = [&](const char* machine, int n_ranks) {
    return machine_memory(config, machine_model(machine), n_ranks);
  };
  EXPECT_EQ(-1, bytes_of(rows("h200", 1), kStagingOwner));
  EXPECT_EQ(-1, bytes_of(rows("h200", 1), kNcclOwner));
  EXPECT_EQ(7 * 32 * kMiB, bytes_of(rows("h200", 8), kStagingOwner));
  EXPECT_EQ(7 * 32 * 12 * kMiB, bytes_of(rows("h200", 8), kNcclOwner));
  EXPECT_EQ(7 * 2 * 12 * kMiB, bytes_of(rows("rtx5090", 8), kNcclOwner));
  EXPECT_EQ(256 * kMiB, bytes_of(rows("h200", 9), kStagingOwner));
  // Tensor groups of two, data groups of four, and the world that they were split from.
  config.parallel.tensor = 2;
  EXPECT_EQ(3 * 32 * kMiB, bytes_of(rows("h200", 8), kStagingOwner));
  EXPECT_EQ((7 + 1 + 3) * 32 * 12 * kMiB, bytes_of(rows("h200", 8), kNcclOwner));
  // Of two nodes: four data ranks within the link of eight GPUs, and neighbours as before.
  EXPECT_EQ(((7 + 3) * 4 + 1 * 32) * 12 * kMiB, bytes_of(rows("h200", 16), kNcclOwner));
}

// The H200 at hand, with the products that its library has by its documentation.
class H200Ops final : public test::WrappedOps {
 public:
  std::string_view name() const override { return "NVIDIA H200"; }
  ops::Buffer allocate(int64_t bytes) override { return inner_->allocate(bytes); }
  bool multiplies_codes(const ops::CodeProduct& p) override {
    return p.a.scales != ops::ScaleMode::kVec16 && p.a.scales != ops::ScaleMode::kVec32;
  }

 private:
  void run(std::string_view, const std::function<void()>& f) override { f(); }
};

TEST(BackendMemory, HasTheOwnersAndBytesOfThePlan) {
  H200Ops h200;
  const ops::GpuFacts gpu{.capability = 90, .memory_bytes = 0, .free_bytes = 0};
  for (const char* const recipe : {"bf16", "fp8-current", "fp8-block-fp32", "nvfp4"}) {
    const Config config = config_of(recipe);
    for (const int n_ranks : {1, 8}) {
      const auto planned = machine_memory(config, machine_model("h200"), n_ranks);
      const auto found = backend_memory(config, h200, n_ranks, 0, gpu);
      ASSERT_EQ(planned.size(), found.size()) << recipe;
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(planned[i].owner, found[i].owner) << recipe;
        EXPECT_EQ(planned[i].bytes, found[i].bytes) << recipe << " " << found[i].owner;
      }
      EXPECT_LT(0, bytes_of(found, kGpuScratchOwner));
    }
  }
}

TEST(BackendMemory, OfTheHostIsThatOfTheTensors) {
  const auto cpu = ops::make_cpu_ops();
  const ops::GpuFacts gpu{.capability = 90, .memory_bytes = 0, .free_bytes = 0};  // beside it
  const Config config = config_of("nvfp4");
  EXPECT_EQ(total_bytes(training_memory(config)),
            total_bytes(backend_memory(config, *cpu, 1, 0, gpu)));
}

}  // namespace
}  // namespace qstep::trainer
