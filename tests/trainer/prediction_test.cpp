// Amdahl's prediction on times that are made up, and the times of calls it is made from.
#include "trainer/bench/prediction.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace qstep::trainer::testing {
namespace {

SitePart gemm(const std::string& op, const std::string& pass, int64_t layer = 0) {
  return {.layer = layer,
          .op = op,
          .pass = pass,
          .m = 8,
          .n = 16,
          .k = 32,
          .format_a = "bf16",
          .format_b = "bf16"};
}
SitePart quant(const std::string& op, int64_t layer = 0) {
  return {.layer = layer, .op = op, .pass = "quant", .format_a = "", .format_b = ""};
}

// Two blocks of a comparison; steps of 100 ms, 50 of them GEMMs, against B's.
ComparePair pair_of(double b_ms, const StepParts& b) {
  const StepParts a{
      .categories = {{"gemm_bf16", 50}, {"attn", 30}, {"host_gap", 5}},
      .sites = {
          {gemm("qkv", "fprop"), 10}, {gemm("qkv", "dgrad", 1), 10}, {gemm("down", "wgrad"), 30}}};
  ComparePair pair{.recipe = 1, .observer = false, .segments_ms = {}, .parts = {}};
  for (int64_t s = 0; s < 2 * kSegmentsPerBlock; ++s) {
    pair.segments_ms.push_back(side_of(s) == Side::kA ? 100 : b_ms);
    pair.parts_of(side_of(s)).add(side_of(s) == Side::kA ? a : b);
  }
  return pair;
}

StepParts quantized(double attn) {
  return {.categories = {{"gemm_nvfp4", 25}, {"quant", 9}, {"attn", attn}},
          .sites = {{gemm("qkv", "fprop"), 4},
                    {gemm("qkv", "dgrad", 1), 5},
                    {gemm("down", "wgrad"), 28},
                    {quant("qkv"), 2},
                    {quant("qkv", 1), 3},
                    {quant("down"), 4}}};
}

TEST(Prediction, IsTheStepWithoutWhatIsSaved) {
  // qkv saves 20 - 9 - 5 = 6, down 30 - 28 - 4 = -2.
  const auto p = predict(pair_of(96, quantized(30)), 100.0 / 96);
  ASSERT_TRUE(p.has_value());
  EXPECT_DOUBLE_EQ(100, p->step_a_ms);
  EXPECT_DOUBLE_EQ(96, p->step_b_ms);
  EXPECT_DOUBLE_EQ(100.0 / 96, p->gain);
  EXPECT_DOUBLE_EQ(0, p->difference());
  EXPECT_TRUE(p->explained());
  ASSERT_EQ(2u, p->linears.size());
  EXPECT_EQ("qkv", p->linears[0].op);
  EXPECT_DOUBLE_EQ(6, p->linears[0].net_ms());
  EXPECT_DOUBLE_EQ(5, p->linears[0].quant_b_ms);
  EXPECT_DOUBLE_EQ(-2, p->linears[1].net_ms());
  EXPECT_DOUBLE_EQ(100.0 / 94, p->winners_gain);
}

TEST(Prediction, NamesWhatElseChanged) {
  const auto p = predict(pair_of(106, quantized(45)), 100.0 / 106);
  EXPECT_DOUBLE_EQ(106.0 / 96 - 1, p->difference());
  EXPECT_FALSE(p->explained());
  ASSERT_EQ(2u, p->others.size());
  EXPECT_EQ("attn", p->others[0].category);
  EXPECT_DOUBLE_EQ(15, p->others[0].change_ms());
  EXPECT_EQ("host_gap", p->others[1].category);  // B had none
  EXPECT_DOUBLE_EQ(-5, p->others[1].change_ms());
  EXPECT_EQ("attn +15 ms, host_gap -5 ms", other_changes_text(*p));
  const auto json = to_json(*p);
  EXPECT_EQ(false, json.at("explained"));
  EXPECT_EQ("attn", json.at("others")[0].at("category"));
}

TEST(Prediction, NoneWithoutTimesOfCalls) {
  ComparePair pair = pair_of(96, quantized(30));
  pair.parts = {};
  EXPECT_FALSE(predict(pair, 1.04).has_value());
}

// Segments measured before the times of calls were noted do not enter the step time either.
TEST(Prediction, StepTimesAreThoseOfTheSameSegments) {
  ComparePair pair = pair_of(96, quantized(30));
  pair.segments_ms.insert(pair.segments_ms.begin(), kSegmentsPerBlock, 500.0);
  pair.segments_ms.push_back(700);  // of a block that is not whole
  const auto p = predict(pair, 1.04);
  EXPECT_LT(p->step_a_ms, 101);
  EXPECT_LT(p->step_b_ms, 101);
}

TEST(StepParts, OneSlowStepOfASegmentDoesNotCount) {
  Timeline timeline(TimingLevel::kOps);
  SegmentParts segment;
  for (int step = 0; step < 3; ++step) {
    timeline.start();
    timeline.label(2, "up fprop");
    const Timeline::Stamp quantize = timeline.begin_call();
    timeline.end_call(quantize, Category::kQuant, "quantize");
    const Timeline::Stamp mark = timeline.begin_call();
    // The first step takes 50 ms in its GEMM.
    while (step == 0 && Timeline::now_ns() - mark < 50'000'000) {
    }
    timeline.end_call(mark, Category::kGemmNvfp4, "gemm",
                      {.m = 1, .n = 2, .k = 3, .a = GemmFormat::kNvfp4, .b = GemmFormat::kBf16});
    timeline.stop();
    segment.add(timeline);
  }
  const StepParts parts = segment.medians();
  ASSERT_EQ(2u, parts.sites.size());
  const SitePart expected{.layer = 2,
                          .op = "up",
                          .pass = "fprop",
                          .m = 1,
                          .n = 2,
                          .k = 3,
                          .format_a = "nvfp4",
                          .format_b = "bf16"};
  EXPECT_LT(parts.sites.at(expected), 50);
  EXPECT_TRUE(parts.sites.contains(quant("up", 2)));
  EXPECT_LT(parts.categories.at("gemm_nvfp4"), 50);
}

TEST(StepParts, MeansAreOverSegmentsWithZerosWhereAPartIsMissing) {
  MeanParts mean;
  mean.add({.categories = {{"attn", 3}}, .sites = {}});
  mean.add({.categories = {{"attn", 5}, {"quant", 6}}, .sites = {{quant("up"), 2}}});
  mean.add({.categories = {{"attn", 7}}, .sites = {}});
  EXPECT_EQ(3, mean.segments);
  EXPECT_DOUBLE_EQ(5, mean.mean.categories.at("attn"));
  EXPECT_DOUBLE_EQ(2, mean.mean.categories.at("quant"));
  EXPECT_NEAR(2.0 / 3, mean.mean.sites.at(quant("up")), 1e-15);
}

}  // namespace
}  // namespace qstep::trainer::testing
