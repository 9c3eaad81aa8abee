// What a step costs on a measured processor: the formulas, with costs that are given.
#include "trainer/machine/cpu_costs.h"

#include <gtest/gtest.h>

#include "trainer/plan/step_model.h"

namespace qstep::trainer {
namespace {

TEST(CpuCosts, AProductsCostsFollowFromTwoSizes) {
  const ProductCost cost{.launch_s = 1e-6, .s_per_flop = 2e-12, .s_per_byte = 3e-11};
  const auto measured = [&](double flops, double bytes) {
    return MeasuredProduct{flops, bytes, cost.seconds(flops, bytes)};
  };
  const ProductCost found = product_cost(measured(1e8, 1e6), measured(2e9, 6e6), 1e-6);
  EXPECT_NEAR(found.s_per_flop, cost.s_per_flop, 1e-9 * cost.s_per_flop);
  EXPECT_NEAR(found.s_per_byte, cost.s_per_byte, 1e-9 * cost.s_per_byte);
  EXPECT_EQ(found.launch_s, 1e-6);
}

TEST(CpuCosts, ASmallProductAsFastAsALargeOneHasFreeBytes) {
  const ProductCost cost = product_cost({1e8, 1e6, 1e-4}, {2e9, 6e6, 4e-3}, 0);
  EXPECT_EQ(cost.s_per_byte, 0);
  EXPECT_DOUBLE_EQ(cost.s_per_flop, 2e-12);
}

TEST(CpuCosts, AttentionsCostsFollowFromThreeSizes) {
  const AttentionCost cost{.s_per_pair = 3e-10, .s_per_pair_dim = 1e-11, .s_per_element = 2e-9};
  const auto measured = [&](int64_t seq_len, int64_t head_dim) {
    return MeasuredAttention{seq_len, head_dim, cost.seconds(seq_len, head_dim)};
  };
  EXPECT_DOUBLE_EQ(cost.seconds(100, 16), 100 * 124 / 2 * (3e-10 + 16 * 1e-11) + 100 * 16 * 2e-9);
  const AttentionCost found =
      attention_cost(measured(512, 32), measured(512, 128), measured(64, 64));
  EXPECT_NEAR(found.s_per_pair, cost.s_per_pair, 1e-9 * cost.s_per_pair);
  EXPECT_NEAR(found.s_per_pair_dim, cost.s_per_pair_dim, 1e-9 * cost.s_per_pair_dim);
  EXPECT_NEAR(found.s_per_element, cost.s_per_element, 1e-9 * cost.s_per_element);
}

// Two layers, 128 wide, an MLP of 512, 256 rows of the vocabulary, T = 32, two sequences.
Config small_config() {
  return load_model_words({"gpt2-10m", "model.n_layers=2", "model.width=128", "model.n_heads=2",
                           "model.n_kv_heads=2", "model.head_dim=64", "model.ffn_width=512",
                           "model.vocab_size=256", "train.seq_len=32", "train.micro_batch=2",
                           "train.global_batch=2"})
      .config;
}

MachineModel machine_of(const CpuCosts& costs) {
  PeakRates peak;
  peak.bf16_gemm_flops_per_s = peak.fp32_gemm_flops_per_s = peak.triad_bytes_per_s = 1;
  return measured_machine(peak, "a processor", 1 << 30, costs);
}

CpuCosts nothing_costs() {
  CpuCosts costs;
  costs.cache_bytes = costs.memory_bytes_per_s = 1e30;
  return costs;
}

TEST(CpuCosts, EveryElementIsCounted) {
  const double N = 64, C = 128, F = 512, L = 2, V = 256;
  const double linears = 3 * C * C + C * C + 2 * C * F;
  // Norms have a weight and a bias, linear layers a bias; positions up to 1024.
  const double parameters = V * C + 1024 * C + L * (linears + 4 * C + C + F + 4 * C) + 2 * C;
  const std::pair<ElementOp, double> expected[] = {
      {ElementOp::kEmbedForward, N * C},
      {ElementOp::kEmbedBackward, N * C},
      {ElementOp::kNormForward, (2 * L + 1) * N * C},
      {ElementOp::kNormBackward, (2 * L + 1) * N * C},
      {ElementOp::kActivationForward, L * N * F},
      {ElementOp::kActivationBackward, L * N * F},
      {ElementOp::kRope, 0},
      {ElementOp::kQkNormForward, 0},
      {ElementOp::kQkNormBackward, 0},
      {ElementOp::kBiasBackward, L * N * (3 * C + C + F + C)},
      {ElementOp::kCrossEntropy, N * V},
      {ElementOp::kSquares, parameters},
      {ElementOp::kUpdate, parameters},
      {ElementOp::kAdd, 0},
  };
  static_assert(std::size(expected) == kElementOps);
  for (const auto& [op, elements] : expected) {
    CpuCosts costs = nothing_costs();
    costs.bf16.element_s[static_cast<size_t>(op)] = 1;
    EXPECT_DOUBLE_EQ(predict_step(small_config(), machine_of(costs), 1).seconds(), elements)
        << "op " << static_cast<int>(op);
  }
}

TEST(CpuCosts, ProductsPayForFlopsBytesAndLaunches) {
  CpuCosts costs = nothing_costs();
  const Config config = small_config();
  costs.bf16.products[1].launch_s = 1;  // dgrad: four a layer, one of the head
  EXPECT_DOUBLE_EQ(predict_step(config, machine_of(costs), 1).seconds(), 2 * 4 + 1);
  const double N = 64, C = 128, F = 512, V = 256;
  costs.bf16.products[1] = {.launch_s = 0, .s_per_flop = 1, .s_per_byte = 0};
  const double weights = 2 * (4 * C * C + 2 * C * F) + V * C;
  EXPECT_DOUBLE_EQ(predict_step(config, machine_of(costs), 1).seconds(), 2 * N * weights);
  // dy, w and dx of every layer in BF16.
  costs.bf16.products[1] = {.launch_s = 0, .s_per_flop = 0, .s_per_byte = 1};
  const double rows = 2 * ((3 * C + C) + (C + C) + (F + C) + (C + F)) + V + C;
  EXPECT_DOUBLE_EQ(predict_step(config, machine_of(costs), 1).seconds(), 2 * (weights + N * rows));
}

TEST(CpuCosts, AttentionCostsItsPairs) {
  CpuCosts costs = nothing_costs();
  costs.bf16.attention_backward = {.s_per_pair = 1, .s_per_pair_dim = 0.5, .s_per_element = 3};
  // Two layers, heads and sequences.
  EXPECT_DOUBLE_EQ(predict_step(small_config(), machine_of(costs), 1).seconds(),
                   8 * (32 * 56 / 2 * (1 + 0.5 * 64) + 32 * 64 * 3));
}

TEST(CpuCosts, TensorsBeyondTheCacheWaitForMemory) {
  CpuCosts costs = nothing_costs();
  costs.bf16.element_s[static_cast<size_t>(ElementOp::kActivationForward)] = 1e-9;
  costs.cache_bytes = 1000;  // no tensor of this model fits
  costs.memory_bytes_per_s = 1e9;
  const StepTime t = predict_step(small_config(), machine_of(costs), 1);
  double bytes = 0;
  for (const MemoryWork& work : t.work.passes) bytes += work.bytes;
  EXPECT_NEAR(t.seconds(), bytes / 1e9, 1e-12 * bytes);
  for (const PhaseTime& p : t.phases) EXPECT_EQ(p.bound(), Bound::kMemory) << p.phase;
}

TEST(CpuProbe, EveryCostIsMeasured) {
  CpuProbe probe(small_config().model, {ops::Dtype::kBf16, ops::Dtype::kF32});
  probe.round();
  const CpuCosts costs = probe.costs();
  EXPECT_GT(costs.launch_s, 0);
  EXPECT_GT(costs.memory_bytes_per_s, 0);
  for (const TypeCosts* type : {&costs.fp32, &costs.bf16}) {
    for (const ProductCost& product : type->products) {
      EXPECT_GT(product.launch_s, 0);
      EXPECT_GT(product.seconds(1e9, 1e6), 0);
    }
    EXPECT_GT(type->attention_forward.seconds(256, 64), 0);
    EXPECT_GT(type->attention_backward.seconds(256, 64), 0);
    for (const double seconds : type->element_s) EXPECT_GT(seconds, 0);
  }
}

}  // namespace
}  // namespace qstep::trainer
