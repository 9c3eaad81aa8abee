// The predicted step against values worked out by hand.
#include "trainer/plan/step_model.h"

#include <gtest/gtest.h>

#include <functional>

#include "ops/error.h"

namespace qstep::trainer {
namespace {

Config config_of(const std::vector<std::string>& words) { return load_model_words(words).config; }

// One sequence of 8192 tokens a micro-batch, `sequences` a step.
Config llama(const std::string& preset, const std::string& recipe, int sequences = 8) {
  return config_of({preset, "train.seq_len=8192", "train.micro_batch=1",
                    "train.global_batch=" + std::to_string(sequences), "precision.recipe=" + recipe,
                    "parallel.reduction=rank"});
}

double seconds_of(const StepTime& t, std::string_view phase) {
  for (const PhaseTime& p : t.phases) {
    if (p.phase == phase) return p.seconds();
  }
  return 0;
}

TEST(StepWork, ProductsAndAttentionAddUpToTheModelsFlops) {
  for (const int tensor : {1, 2, 8}) {
    Config config = llama("llama-8b", "bf16");
    config.parallel.tensor = tensor;
    const StepWork w = step_work(config, tensor * 4);
    double flops = w.attention_forward_flops + w.attention_backward_flops;
    for (const ProductWork& p : w.products) flops += p.count * p.flops();
    EXPECT_NEAR(flops / w.causal_flops, 1, 1e-12) << tensor;  // 128256 rows need no padding
  }
}

TEST(StepWork, QuantizersReadAndWriteWhatTheRecipeSays) {
  const auto find = [](const std::string& recipe, std::string_view op, std::string_view tensor,
                       int ranks = 1) {
    Config config = llama("llama-8b", recipe);
    config.parallel.tensor = ranks;
    for (const QuantizeWork& q : step_work(config, ranks).quantizations) {
      if (q.op == op && q.tensor == tensor) return q;
    }
    return QuantizeWork{};
  };
  const auto x_of_up = [&](const std::string& recipe) { return find(recipe, "up", "x"); };
  EXPECT_EQ(x_of_up("bf16").count, 0);
  EXPECT_EQ(x_of_up("mxfp8").reads, 1);        // a block's amax comes with it
  EXPECT_EQ(x_of_up("fp8-current").reads, 1);  // the tensor's comes from the norm
  EXPECT_EQ(x_of_up("fp8-delayed").reads, 1);  // it is known
  EXPECT_EQ(x_of_up("nvfp4").reads, 2);        // comes first: behind the Hadamard transform
  for (const std::string_view op : {"qkv", "up", "down"}) {
    EXPECT_EQ(find("fp8-current", op, "x").reads, 1) << op;
    EXPECT_EQ(find("fp8-current", op, "w").reads, 2) << op;
    EXPECT_EQ(find("fp8-current", op, "x", 2).reads, 2) << op;  // a rank makes a part of it
  }
  for (const std::string_view op : {"attn_out", "up", "down"}) {
    EXPECT_EQ(find("fp8-current", op, "dy").reads, 1) << op;
  }
  EXPECT_EQ(find("fp8-current", "attn_out", "x").reads, 2);  // attention leaves none
  EXPECT_EQ(find("fp8-current", "qkv", "dy").reads, 2);
  EXPECT_EQ(x_of_up("nvfp4").count, 27 * 8);  // the last 15 % of 32 blocks stay, 8 micro-batches
  EXPECT_EQ(x_of_up("mxfp8").elements(), 8192.0 * 4096);
}

TEST(StepWork, ParametersOfARank) {
  Config config = llama("llama-8b", "bf16");
  EXPECT_EQ(step_work(config, 1).parameters, 8030261248);
  EXPECT_EQ(step_work(config, 8).owned_parameters, 8030261248 / 8);
  config.parallel.tensor = 8;
  const double norms = 65.0 * 4096;
  EXPECT_EQ(step_work(config, 8).parameters, (8030261248 - norms) / 8 + norms);
  EXPECT_EQ(step_work(config, 8).embedding_parameters, 128256.0 * 4096 / 8);
}

TEST(StepModel, AProductTakesTheLongerOfFlopsAndBytesAndALaunch) {
  MachineModel m = machine_model("h100");
  m.launch_s = 1e-3;
  const double rate = 989e12 * 0.803 * 0.631 / 0.776;
  const StepTime t = predict_step(llama("llama-8b", "bf16", 1), m, 1);
  for (const ProductTime& p : t.products) {
    if (p.work.op != "up" || p.work.pass != "fprop") continue;
    // 2 * 8192 * 28672 * 4096 flops in each of 32 blocks
    EXPECT_NEAR(p.seconds, 32 * (2.0 * 8192 * 28672 * 4096 / rate + 1e-3), 1e-9);
    EXPECT_EQ(p.bound, Bound::kMatrix);
  }
  m.memory.peak = 1e9;
  const StepTime slow = predict_step(llama("llama-8b", "bf16", 1), m, 1);
  for (const ProductTime& p : slow.products) EXPECT_EQ(p.bound, Bound::kMemory);
}

TEST(StepModel, Fp4OnHopperIsEmulatedAndSlowerThanBf16) {
  const MachineModel& h100 = machine_model("h100");
  const StepTime fp4 = predict_step(llama("llama-8b", "nvfp4"), h100, 1);
  const StepTime bf16 = predict_step(llama("llama-8b", "bf16"), h100, 1);
  EXPECT_TRUE(fp4.emulated);
  EXPECT_FALSE(bf16.emulated);
  EXPECT_DOUBLE_EQ(fp4.least.sol_s, bf16.least.sol_s);  // at the peak of what really runs
  EXPECT_GT(fp4.seconds(), bf16.seconds());
  EXPECT_EQ(seconds_of(fp4, "gemm_nvfp4"), 0);
  const StepTime native = predict_step(llama("llama-8b", "nvfp4"), machine_model("gb300"), 1);
  EXPECT_FALSE(native.emulated);
  EXPECT_GT(seconds_of(native, "gemm_nvfp4"), 0);
  EXPECT_GT(seconds_of(native, "gemm_bf16"), 0);  // the last blocks
  EXPECT_LT(native.least.sol_s, bf16.least.sol_s * 989 / 2450);
}

TEST(StepModel, CommunicationHidesAsFarAsThereIsWorkBesideIt) {
  MachineModel m = machine_model("h100");
  const auto comm = [&](std::string_view phase) {
    const StepTime t = predict_step(llama("llama-8b", "bf16"), m, 8);
    for (const CommTime& c : t.comm) {
      if (c.phase == phase) return c;
    }
    return CommTime{};
  };
  // 7/8 of 8.03e9 gradients of 4 bytes at 360 GB/s, and 34 launches; most of it hidden.
  const double embeddings = 128256.0 * 4096 / 8030261248;
  const CommTime fast = comm("grad_reduce");
  EXPECT_NEAR(fast.total_s, 7.0 / 8 * 4 * 8030261248 / 360e9 + 34 * 3.6e-6, 1e-9);
  EXPECT_NEAR(fast.exposed_s, embeddings * fast.total_s, 1e-9);
  m.link.peak /= 100;
  const CommTime slow = comm("grad_reduce");
  EXPECT_GT(slow.exposed_s, 0.8 * slow.total_s);
  EXPECT_LT(slow.exposed_s, slow.total_s);
  EXPECT_EQ(slow.bound, Bound::kLink);
}

TEST(StepModel, RanksBeyondTheLinkGoOverTheNetwork) {
  MachineModel m = machine_model("h100");
  Config config = llama("llama-8b", "bf16", 128);
  config.parallel.tensor = 8;
  // One member of a data group a node, 50 GB/s of which 80 % are attained.
  for (const CommTime& c : predict_step(config, m, 16).comm) {
    if (c.group != "data") continue;
    EXPECT_EQ(c.bound, Bound::kNetwork);
    EXPECT_NEAR(c.total_s, c.bytes / 40e9 + c.calls * m.launch_s, 1e-9);
  }
  m.network.peak = 0;
  EXPECT_THROW(predict_step(config, m, 16), ops::Error);
  EXPECT_NO_THROW(predict_step(config, m, 8));
}

TEST(StepModel, PhasesComeInTheOrderOfTheReportAndAddUp) {
  Config config = llama("llama-8b", "nvfp4", 64);
  config.parallel.tensor = 2;
  const StepTime t = predict_step(config, machine_model("gb300"), 8);
  std::vector<std::string> names;
  double sum = 0;
  for (const PhaseTime& p : t.phases) {
    names.push_back(p.phase);
    sum += p.seconds();
  }
  EXPECT_EQ(names, (std::vector<std::string>{"embed", "norm_elem", "quant", "gemm_nvfp4",
                                             "gemm_bf16", "attn", "head_loss", "grad_reduce",
                                             "param_gather", "tp_comm", "clip", "optim"}));
  EXPECT_DOUBLE_EQ(t.seconds(), sum);
  EXPECT_DOUBLE_EQ(t.tokens_per_s(), 64.0 * 8192 / sum);
}

TEST(StepModel, AMachineWithoutTheComputeTypeIsRefused) {
  EXPECT_THROW(predict_step(llama("llama-8b", "fp32"), machine_model("h100"), 1), ops::Error);
}

}  // namespace
}  // namespace qstep::trainer
