#include "precision/recipe.h"

#include <gtest/gtest.h>

namespace qstep::precision {
namespace {

constexpr int64_t kSteps = 100;

LayerName layer(int64_t block, const std::string& kind = "qkv", int64_t n_blocks = 10) {
  return {
      .name = "blocks." + std::to_string(block) + "." + kind, .block = block, .n_blocks = n_blocks};
}

QuantSpec spec(QuantFormat format) { return default_spec(format); }

Recipe all_in(QuantFormat format) {
  Recipe recipe;
  recipe.operands.specs.fill(spec(format));
  return recipe;
}

TEST(Matches, StarsStandForAnyText) {
  EXPECT_TRUE(matches("blocks.3.qkv", "blocks.3.qkv"));
  EXPECT_FALSE(matches("blocks.3.qkv", "blocks.13.qkv"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("*", "anything"));
  EXPECT_TRUE(matches("blocks.*.down", "blocks.12.down"));
  EXPECT_FALSE(matches("blocks.*.down", "blocks.12.up"));
  EXPECT_FALSE(matches("blocks.1*.down", "blocks.2.down"));
  EXPECT_TRUE(matches("*.1*.d*n", "blocks.1.down"));
  EXPECT_TRUE(matches("a*b*c", "aXbXbXc"));
  EXPECT_FALSE(matches("a*b*c", "aXcXb"));
  EXPECT_FALSE(matches("", "a"));
}

TEST(BlockCount, NumbersAndShares) {
  EXPECT_EQ((BlockCount{.n = 3}).of(10), 3);
  EXPECT_EQ((BlockCount{.n = 30}).of(10), 10);
  EXPECT_EQ((BlockCount{}).of(10), 0);
  const BlockCount share{.fraction = 0.15};
  EXPECT_EQ(share.of(1), 1);
  EXPECT_EQ(share.of(8), 1);
  EXPECT_EQ(share.of(12), 2);
  EXPECT_EQ(share.of(24), 4);
  EXPECT_EQ(share.of(62), 9);
}

TEST(Recipe, KeptLayersStayInTheComputeType) {
  Recipe recipe = all_in(QuantFormat::kNvfp4);
  recipe.keep_first.n = 1;
  recipe.keep_last.n = 2;
  recipe.keep = {"*.attn_out"};
  recipe.overrides.push_back({.layers = "*", .given = {true}, .operands = recipe.operands});
  for (int64_t block = 0; block < 10; ++block) {
    const bool end = block == 0 || block >= 8;
    EXPECT_EQ(operands_at(recipe, layer(block), 1, kSteps).quantized(), !end) << block;
    EXPECT_FALSE(operands_at(recipe, layer(block, "attn_out"), 1, kSteps).quantized()) << block;
  }
}

TEST(Recipe, LaterOverridesAndSwitchesWinAndTouchWhatTheyGive) {
  Recipe recipe = all_in(QuantFormat::kNvfp4);
  const auto with = [](QuantFormat format) { return all_in(format).operands; };
  recipe.overrides = {{"blocks.*.down", {true, true}, with(QuantFormat::kMxfp8E4m3)},
                      {"blocks.2.*", {true}, with(QuantFormat::kFp8E4m3)}};
  recipe.switches = {{51, 0, {false, true}, with(QuantFormat::kMxfp4)},
                     {0, 0.8, {false, true}, OperandTable{}}};
  const auto formats = [&](int64_t block, const char* kind, int64_t step) {
    const OperandTable t = operands_at(recipe, layer(block, kind), step, kSteps);
    return std::pair{t[OperandSlot::kXFprop].format, t[OperandSlot::kWFprop].format};
  };
  using F = QuantFormat;
  EXPECT_EQ(formats(1, "qkv", 50), std::pair(F::kNvfp4, F::kNvfp4));
  EXPECT_EQ(formats(1, "down", 50), std::pair(F::kMxfp8E4m3, F::kMxfp8E4m3));
  EXPECT_EQ(formats(2, "down", 50), std::pair(F::kFp8E4m3, F::kMxfp8E4m3));
  EXPECT_EQ(formats(2, "down", 51), std::pair(F::kFp8E4m3, F::kMxfp4));
  EXPECT_EQ(formats(2, "down", 80), std::pair(F::kFp8E4m3, F::kMxfp4));
  EXPECT_EQ(formats(2, "down", 81), std::pair(F::kFp8E4m3, F::kBf16));
  EXPECT_EQ(operands_at(recipe, layer(2), 81, kSteps)[OperandSlot::kDyDgrad].format, F::kNvfp4);
}

// What the forward pass made of a tensor that it did not quantize is the tensor.
TEST(Recipe, SourceFollowsTheForwardOperand) {
  Recipe recipe = all_in(QuantFormat::kNvfp4);
  recipe.operands[OperandSlot::kXWgrad].source = Source::kForward;
  recipe.operands[OperandSlot::kWDgrad].source = Source::kForward;
  recipe.switches = {{0, 0.5, {true}, OperandTable{}}};
  const OperandTable before = operands_at(recipe, layer(0), 50, kSteps);
  EXPECT_EQ(before[OperandSlot::kXWgrad].source, Source::kForward);
  const OperandTable after = operands_at(recipe, layer(0), 51, kSteps);
  EXPECT_EQ(after[OperandSlot::kXWgrad].source, Source::kHighPrecision);
  EXPECT_EQ(after[OperandSlot::kWDgrad].source, Source::kForward);
}

TEST(Recipe, PhasesStartBehindTheFraction) {
  Recipe recipe;
  EXPECT_EQ(phase_starts(recipe, kSteps), (std::vector<int64_t>{1}));
  recipe.switches = {{0, 0.82, {}, {}}, {40, 0, {}, {}}, {0, 0.39, {}, {}}, {1000, 0, {}, {}}};
  EXPECT_EQ(phase_starts(recipe, kSteps), (std::vector<int64_t>{1, 40, 83}));
  EXPECT_EQ(phase_starts(recipe, 7), (std::vector<int64_t>{1, 3, 6}));
  recipe.switches = {{0, 0.29, {}, {}}};  // 0.29 * 100 is 28.999... in binary
  EXPECT_EQ(phase_starts(recipe, kSteps), (std::vector<int64_t>{1, 30}));
  recipe.switches = {{0, 0.5, {}, {}}};
  EXPECT_EQ(phase_starts(recipe, 1), (std::vector<int64_t>{1}));
}

TEST(Recipe, QuantizedAndDelayedLookEverywhere) {
  Recipe recipe;
  EXPECT_FALSE(recipe.quantized());
  recipe.switches = {{5, 0, {true}, {}}};
  EXPECT_FALSE(recipe.quantized());
  recipe.switches[0].operands[OperandSlot::kXFprop] = spec(QuantFormat::kFp8E4m3);
  EXPECT_TRUE(recipe.quantized());
  EXPECT_FALSE(recipe.has_delayed());
  recipe.switches[0].operands[OperandSlot::kXFprop].amax = AmaxScope::kDelayed;
  EXPECT_TRUE(recipe.has_delayed());
}

std::vector<OperandProblem> problems_of(const OperandTable& table) {
  return problems(table, ComputeType::kBf16);
}

TEST(OperandProblems, HadamardTransformsMustCancel) {
  for (const auto& [a, b] : {std::pair{OperandSlot::kXFprop, OperandSlot::kWFprop},
                             std::pair{OperandSlot::kDyDgrad, OperandSlot::kWDgrad},
                             std::pair{OperandSlot::kDyWgrad, OperandSlot::kXWgrad}}) {
    OperandTable table = all_in(QuantFormat::kNvfp4).operands;
    EXPECT_TRUE(problems_of(table).empty());
    table[a].hadamard = 16;
    ASSERT_EQ(problems_of(table).size(), 1u);
    EXPECT_EQ(problems_of(table)[0].slot, a);
    table[b].hadamard = 32;
    EXPECT_EQ(problems_of(table).size(), 1u);
    table[b].hadamard = 16;
    EXPECT_TRUE(problems_of(table).empty());
    table[b].signs = Signs::kPerStep;
    EXPECT_EQ(problems_of(table).size(), 1u);
    table[b] = QuantSpec{};  // a GEMM with one rotated and one BF16 operand is wrong as well
    EXPECT_EQ(problems_of(table).size(), 1u);
  }
}

TEST(OperandProblems, SourceOfTheForwardPass) {
  for (size_t slot = 0; slot < kOperandSlots; ++slot) {
    OperandTable table = all_in(QuantFormat::kNvfp4).operands;
    table.specs[slot].source = Source::kForward;
    const auto which = static_cast<OperandSlot>(slot);
    const bool copy = which == OperandSlot::kWDgrad || which == OperandSlot::kXWgrad;
    EXPECT_EQ(problems_of(table).empty(), copy) << kOperandSlotNames[slot];
  }
  // Values that carry a factor of the tensor, into a format that has no place for it.
  OperandTable table = all_in(QuantFormat::kNvfp4).operands;
  table[OperandSlot::kXWgrad] = spec(QuantFormat::kMxfp8E4m3);
  EXPECT_TRUE(problems_of(table).empty());
  table[OperandSlot::kXWgrad].source = Source::kForward;
  EXPECT_EQ(problems_of(table).size(), 1u);
  table[OperandSlot::kXFprop].amax = AmaxScope::kGroup128;
  EXPECT_TRUE(problems_of(table).empty());
}

TEST(OperandProblems, OneDelayedScalePerTensor) {
  OperandTable table;
  table[OperandSlot::kDyDgrad] = spec(QuantFormat::kFp8E4m3);
  table[OperandSlot::kDyDgrad].amax = AmaxScope::kDelayed;
  table[OperandSlot::kDyWgrad] = spec(QuantFormat::kFp8E5m2);
  EXPECT_TRUE(problems_of(table).empty());
  table[OperandSlot::kDyWgrad].amax = AmaxScope::kDelayed;
  ASSERT_EQ(problems_of(table).size(), 1u);
  EXPECT_EQ(problems_of(table)[0].slot, OperandSlot::kDyDgrad);
}

TEST(OperandProblems, Fp32ComputesUnquantizedOnly) {
  EXPECT_TRUE(problems(OperandTable{}, ComputeType::kFp32).empty());
  EXPECT_EQ(problems(all_in(QuantFormat::kNvfp4).operands, ComputeType::kFp32).size(), 6u);
}

TEST(OperandProblems, ActivationsOfFpropHaveRows) {
  OperandTable table = all_in(QuantFormat::kMxfp8E4m3).operands;
  table[OperandSlot::kXFprop].block = {32, 32};
  ASSERT_EQ(problems_of(table).size(), 1u);
  EXPECT_EQ(problems_of(table)[0].slot, OperandSlot::kXFprop);
}

}  // namespace
}  // namespace qstep::precision
