#include "precision/quant_spec.h"

#include <gtest/gtest.h>

#include <set>

namespace qstep::precision {
namespace {

constexpr BlockShape kTensorBlock{0, 0};

TEST(QuantSpec, DefaultsAreTheSpecifiedOnesAndHaveNoProblems) {
  struct Row {
    QuantFormat format;
    BlockShape block;
    ScaleRule scale;
  };
  for (const Row& row : {Row{QuantFormat::kNvfp4, {1, 16}, ScaleRule::kE4m3},
                         Row{QuantFormat::kMxfp4, {1, 32}, ScaleRule::kPow2Up},
                         Row{QuantFormat::kMxfp8E4m3, {1, 32}, ScaleRule::kPow2Up},
                         Row{QuantFormat::kMxfp8E5m2, {1, 32}, ScaleRule::kPow2Up},
                         Row{QuantFormat::kFp8E4m3, kTensorBlock, ScaleRule::kFp32},
                         Row{QuantFormat::kFp8E5m2, kTensorBlock, ScaleRule::kFp32}}) {
    QuantSpec spec;
    spec.format = row.format;
    spec.block = row.block;
    spec.scale = row.scale;
    EXPECT_EQ(default_spec(row.format), spec) << name(row.format);
    EXPECT_TRUE(problems(spec).empty()) << name(row.format);
  }
  EXPECT_EQ(default_spec(QuantFormat::kBf16), QuantSpec{});
  EXPECT_TRUE(problems(QuantSpec{}).empty());
}

TEST(QuantSpec, DescribesWhatDiffersFromTheDefault) {
  QuantSpec spec = default_spec(QuantFormat::kNvfp4);
  EXPECT_EQ(describe(spec), "nvfp4 1x16");
  spec.rounding = Rounding::kStochastic;
  spec.hadamard = 16;
  EXPECT_EQ(describe(spec), "nvfp4 1x16 stochastic hadamard-16");
  spec = default_spec(QuantFormat::kNvfp4);
  spec.four_over_six = FourOverSix::kMse;
  spec.e4m3_max = 256;
  EXPECT_EQ(describe(spec), "nvfp4 1x16 4/6-mse e4m3-max-256");
  spec = default_spec(QuantFormat::kMxfp4);
  spec.scale = ScaleRule::kPow2Floor;
  spec.hadamard = 64;
  spec.signs = Signs::kPerStep;
  spec.headroom = Headroom::kThreeQuarters;
  EXPECT_EQ(describe(spec), "mxfp4 1x32 pow2-floor hadamard-64 signs-per-step headroom-3/4");
  spec = default_spec(QuantFormat::kFp8E5m2);
  spec.amax = AmaxScope::kDelayed;
  spec.source = Source::kForward;
  EXPECT_EQ(describe(spec), "fp8-e5m2 tensor amax-delayed of-forward");
  EXPECT_EQ(describe(QuantSpec{}), "bf16");
}

// A spec and a word of the one problem that it has; "" for none.
struct Case {
  QuantFormat format;
  void (*change)(QuantSpec&);
  const char* problem;
};

constexpr auto kNv = QuantFormat::kNvfp4;
constexpr auto kM4 = QuantFormat::kMxfp4;
constexpr auto kM8 = QuantFormat::kMxfp8E4m3;
constexpr auto kF8 = QuantFormat::kFp8E4m3;

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      // blocks and scales
      {kNv,
       [](QuantSpec& s) {
         s.block = {16, 16};
       },
       ""},
      {kNv,
       [](QuantSpec& s) {
         s.block = {1, 32};
       },
       "nvfp4 has no block 1x32"},
      {kNv,
       [](QuantSpec& s) {
         s.block = {128, 128};
       },
       "nvfp4 has no block 128x128"},
      {kNv, [](QuantSpec& s) { s.block = kTensorBlock; }, "nvfp4 has no block tensor"},
      {kM8,
       [](QuantSpec& s) {
         s.block = {32, 32};
       },
       ""},
      {kM8,
       [](QuantSpec& s) {
         s.block = {1, 16};
       },
       "write one of 1x32, 32x32"},
      {kF8,
       [](QuantSpec& s) {
         s.block = {1, 128};
       },
       ""},
      {kF8,
       [](QuantSpec& s) {
         s.block = {128, 128};
       },
       ""},
      {kF8,
       [](QuantSpec& s) {
         s.block = {1, 32};
       },
       "write one of tensor, 1x128, 128x128"},
      {kNv, [](QuantSpec& s) { s.scale = ScaleRule::kE4m3TwoRounding; }, ""},
      {kNv, [](QuantSpec& s) { s.scale = ScaleRule::kFp32; },
       "write one of e4m3, e4m3-two-rounding"},
      {kM4, [](QuantSpec& s) { s.scale = ScaleRule::kPow2Floor; }, ""},
      {kM4, [](QuantSpec& s) { s.scale = ScaleRule::kE4m3; }, "write one of pow2-up, pow2-floor"},
      {kF8, [](QuantSpec& s) { s.scale = ScaleRule::kFp32Pow2; }, ""},
      {kF8, [](QuantSpec& s) { s.scale = ScaleRule::kPow2Up; }, "write one of fp32, fp32-pow2"},
      // rounding
      {kNv, [](QuantSpec& s) { s.rounding = Rounding::kStochastic; }, ""},
      {kM4, [](QuantSpec& s) { s.rounding = Rounding::kStochastic; }, ""},
      {kM8, [](QuantSpec& s) { s.rounding = Rounding::kStochastic; }, "only nvfp4 and mxfp4"},
      {kF8, [](QuantSpec& s) { s.rounding = Rounding::kStochastic; }, "only nvfp4 and mxfp4"},
      {kNv,
       [](QuantSpec& s) {
         s.block = {16, 16};
         s.rounding = Rounding::kStochastic;
       },
       "square blocks"},
      {kNv,
       [](QuantSpec& s) {
         s.rounding = Rounding::kMsEden;
         s.hadamard = 128;
       },
       ""},
      {kNv, [](QuantSpec& s) { s.rounding = Rounding::kMsEden; }, "write hadamard = 128"},
      {kM4,
       [](QuantSpec& s) {
         s.rounding = Rounding::kMsEden;
         s.hadamard = 32;
       },
       "has no ms-eden"},
      {kNv,
       [](QuantSpec& s) {
         s.rounding = Rounding::kMsEden;
         s.hadamard = 32;
         s.four_over_six = FourOverSix::kMse;
       },
       "ms-eden takes no four_over_six"},
      {kNv,
       [](QuantSpec& s) {
         s.rounding = Rounding::kMsEden;
         s.hadamard = 32;
         s.e4m3_max = 256;
       },
       "leave e4m3_max out"},
      {kNv,
       [](QuantSpec& s) {
         s.rounding = Rounding::kMsEden;
         s.hadamard = 32;
         s.amax = AmaxScope::kRow;
       },
       "ms-eden takes amax"},
      // Hadamard
      {kNv, [](QuantSpec& s) { s.hadamard = 16; }, ""},
      {kM8, [](QuantSpec& s) { s.hadamard = 128; }, ""},
      {kNv, [](QuantSpec& s) { s.hadamard = 8; }, "not one of 0, 16, 32, 64, 128"},
      {kNv, [](QuantSpec& s) { s.signs = Signs::kPerStep; }, "without hadamard"},
      {kF8, [](QuantSpec& s) { s.hadamard = 16; }, "one scale for the tensor"},
      {kNv,
       [](QuantSpec& s) {
         s.block = {16, 16};
         s.hadamard = 16;
       },
       "square blocks are transposed"},
      // options of nvfp4
      {kNv, [](QuantSpec& s) { s.four_over_six = FourOverSix::kMae; }, ""},
      {kNv,
       [](QuantSpec& s) {
         s.four_over_six = FourOverSix::kAbsMax;
         s.rounding = Rounding::kStochastic;
         s.hadamard = 16;
       },
       ""},
      {kM4, [](QuantSpec& s) { s.four_over_six = FourOverSix::kMae; }, "takes no four_over_six"},
      {kNv,
       [](QuantSpec& s) {
         s.four_over_six = FourOverSix::kMae;
         s.scale = ScaleRule::kE4m3TwoRounding;
       },
       "own order of roundings"},
      {kNv, [](QuantSpec& s) { s.e4m3_max = 256; }, ""},
      {kNv, [](QuantSpec& s) { s.e4m3_max = 240; }, "is not 448 or 256"},
      {kF8, [](QuantSpec& s) { s.e4m3_max = 256; }, "takes no e4m3_max"},
      // headroom
      {kNv, [](QuantSpec& s) { s.headroom = Headroom::kSixteenSeventeenths; }, ""},
      {kNv, [](QuantSpec& s) { s.headroom = Headroom::kThreeQuarters; }, "only mxfp4"},
      {kM4, [](QuantSpec& s) { s.headroom = Headroom::kThreeQuarters; }, ""},
      {kM8, [](QuantSpec& s) { s.headroom = Headroom::kThreeQuarters; }, "only mxfp4"},
      {kM4, [](QuantSpec& s) { s.headroom = Headroom::kSixteenSeventeenths; }, "only nvfp4"},
      // amax
      {kF8, [](QuantSpec& s) { s.amax = AmaxScope::kDelayed; }, ""},
      {kF8, [](QuantSpec& s) { s.amax = AmaxScope::kRow; }, ""},
      {kF8,
       [](QuantSpec& s) {
         s.amax = AmaxScope::kDelayed;
         s.block = {1, 128};
       },
       "amax = \"delayed\" is for fp8"},
      {kF8,
       [](QuantSpec& s) {
         s.amax = AmaxScope::kDelayed;
         s.scale = ScaleRule::kFp32Pow2;
       },
       "not a power of two"},
      {kNv, [](QuantSpec& s) { s.amax = AmaxScope::kDelayed; }, "not for nvfp4 1x16"},
      {kNv, [](QuantSpec& s) { s.amax = AmaxScope::kRow; }, ""},
      {kNv,
       [](QuantSpec& s) {
         s.amax = AmaxScope::kRow;
         s.block = {16, 16};
       },
       "amax = \"row\" is for"},
      {kM8, [](QuantSpec& s) { s.amax = AmaxScope::kRow; }, "not for mxfp8-e4m3 1x32"},
      {kNv, [](QuantSpec& s) { s.amax = AmaxScope::kGroup128; }, ""},
      {kF8, [](QuantSpec& s) { s.amax = AmaxScope::kGroup128; }, "amax = \"group-128\" is for"},
      {kNv,
       [](QuantSpec& s) {
         s.amax = AmaxScope::kGroup128;
         s.e4m3_max = 256;
       },
       "its own scales"},
      // bf16
      {QuantFormat::kBf16, [](QuantSpec& s) { s.hadamard = 16; }, "takes no other field"},
      {QuantFormat::kBf16, [](QuantSpec& s) { s.source = Source::kForward; }, "takes no source"},
  };
  return list;
}

TEST(QuantSpec, ImpossibleCombinations) {
  for (const Case& c : cases()) {
    QuantSpec spec = default_spec(c.format);
    c.change(spec);
    SCOPED_TRACE(describe(spec));
    const std::vector<std::string> found = problems(spec);
    if (*c.problem == 0) {
      EXPECT_TRUE(found.empty()) << found.front();
    } else {
      ASSERT_EQ(found.size(), 1u) << c.problem;
      EXPECT_NE(found[0].find(c.problem), std::string::npos) << found[0];
    }
  }
}

TEST(QuantSpec, SaysEverythingThatIsWrong) {
  QuantSpec spec = default_spec(QuantFormat::kMxfp8E4m3);
  spec.block = {1, 16};
  spec.four_over_six = FourOverSix::kMae;
  spec.headroom = Headroom::kThreeQuarters;
  EXPECT_EQ(problems(spec).size(), 3u);
}

TEST(QuantSpec, MultiplesOfDimensions) {
  QuantSpec spec = default_spec(QuantFormat::kNvfp4);
  EXPECT_EQ(multiple_of_k(spec), 16);
  EXPECT_EQ(multiple_of_rows(spec), 1);
  spec.hadamard = 64;
  EXPECT_EQ(multiple_of_k(spec), 64);
  spec.hadamard = 0;
  spec.amax = AmaxScope::kGroup128;
  EXPECT_EQ(multiple_of_k(spec), 128);
  spec = default_spec(QuantFormat::kMxfp8E4m3);
  spec.block = {32, 32};
  EXPECT_EQ(multiple_of_k(spec), 32);
  EXPECT_EQ(multiple_of_rows(spec), 32);
  spec = default_spec(QuantFormat::kFp8E4m3);
  spec.block = {128, 128};
  EXPECT_EQ(multiple_of_k(spec), 1);
  EXPECT_EQ(multiple_of_rows(spec), 1);
  spec.block = {1, 128};
  spec.hadamard = 32;
  EXPECT_EQ(multiple_of_k(spec), 32);
  EXPECT_EQ(multiple_of_k(QuantSpec{}), 1);
}

// A text that stands for two values could not be read back.
TEST(QuantSpec, NamesAreDistinct) {
  const auto distinct = [](const auto& names) {
    std::set<std::string_view> texts;
    for (const auto& [text, value] : names) texts.insert(text);
    return texts.size() == names.size();
  };
  EXPECT_TRUE(distinct(kQuantFormatNames) && distinct(kBlockNames) && distinct(kScaleRuleNames) &&
              distinct(kRoundingNames) && distinct(kSignsNames) && distinct(kFourOverSixNames) &&
              distinct(kHeadroomNames) && distinct(kAmaxScopeNames) && distinct(kSourceNames));
}

}  // namespace
}  // namespace qstep::precision
