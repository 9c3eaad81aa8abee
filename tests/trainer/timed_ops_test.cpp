// What is noted of the calls of real steps, and that noting it changes nothing.
#include "trainer/timing/timed_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "tests/trainer/step_testing.h"
#include "trainer/timing/labels.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kBatch = 2, kTokens = 32, kMicros = 2;

Config config_of(const std::string& recipe, TimingLevel level) {
  ModelConfig m;
  m.vocab_size = 100;
  m.n_layers = 3;
  m.width = 128;
  m.n_heads = 2;
  m.n_kv_heads = 2;
  m.head_dim = 64;
  m.ffn_width = 256;
  m.max_seq_len = kTokens;
  Config c = step_config(m, kBatch, kTokens);
  c.train.global_batch = kMicros * kBatch;
  set_recipe(c, recipe);
  c.timing.level = level;
  return c;
}

FixedBatches batches_of(const Config& c) {
  return FixedBatches(
      {random_batch(c.model, kBatch, kTokens, 61), random_batch(c.model, kBatch, kTokens, 62)});
}

double sum(const Breakdown& ms) { return std::accumulate(ms.begin(), ms.end(), 0.0); }
double of(const StepResult& step, Category category) {
  return (*step.breakdown_ms)[static_cast<size_t>(category)];
}

class TimedSteps : public ::testing::TestWithParam<std::string> {};

TEST_P(TimedSteps, SameBitsAtEveryLevel) {
  std::vector<std::byte> expected;
  for (const TimingLevel level : {TimingLevel::kOff, TimingLevel::kPhases, TimingLevel::kOps}) {
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config_of(GetParam(), level));
    FixedBatches batches = batches_of(trainer.config());
    for (int64_t update = 1; update <= 2; ++update) {
      const StepResult step = trainer.step(batches, 1e-3, update);
      EXPECT_EQ(level == TimingLevel::kOps, step.breakdown_ms.has_value());
    }
    const std::vector<std::byte> found = bytes_of(trainer.parameters().master);
    if (level == TimingLevel::kOff) expected = found;
    EXPECT_TRUE(expected == found);
  }
}

TEST_P(TimedSteps, CategoriesAreTheStep) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, config_of(GetParam(), TimingLevel::kOps));
  FixedBatches batches = batches_of(trainer.config());
  for (int64_t update = 1; update <= 3; ++update) {
    const StepResult step = trainer.step(batches, 1e-3, update);
    EXPECT_NEAR(total_ms(step.phases_ms), sum(*step.breakdown_ms), 1e-6);
    for (const double ms : *step.breakdown_ms) EXPECT_GE(ms, 0.0);
  }
  // Calls of one lane: in order, apart, inside the step.
  int64_t end = trainer.timeline().step().begin;
  for (const TimeSpan& span : trainer.timeline().spans()) {
    EXPECT_GE(span.when.begin, end) << span.call;
    EXPECT_GE(span.own_ns(), 0);
    end = span.when.end;
  }
  EXPECT_LE(end, trainer.timeline().step().end);
}

INSTANTIATE_TEST_SUITE_P(Recipes, TimedSteps, ::testing::Values("fp32", "bf16", "nvfp4", "mxfp8"));

// Every GEMM of a step once, under its name, with its sizes: together the FLOPs of the formula.
TEST(TimedOps, GemmsAreThoseOfTheModel) {
  const Config c = config_of("bf16", TimingLevel::kOps);
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, c);
  FixedBatches batches = batches_of(c);
  trainer.step(batches, 1e-3, 1);
  std::map<std::pair<int64_t, std::string>, GemmCall> found;
  std::map<std::pair<int64_t, std::string>, int64_t> calls;
  for (const TimeSpan& span : trainer.timeline().spans()) {
    if (span.call != "gemm") continue;
    const auto key = std::pair(span.layer, std::string(span.label));
    EXPECT_TRUE(calls[key]++ == 0 || found[key] == span.gemm);
    found[key] = span.gemm;
    EXPECT_EQ(span.layer < 0 ? Category::kHeadLoss : Category::kGemmBf16, span.category);
    EXPECT_EQ(span.label.ends_with("fprop") ? Phase::kForward : Phase::kBackward, span.phase);
  }
  const int64_t N = kBatch * kTokens;
  const auto expect = [&](int64_t layer, const LinearLabels& labels, int64_t out, int64_t in) {
    const auto one = [&](std::string_view label, const GemmCall& gemm) {
      const auto key = std::pair(layer, std::string(label));
      EXPECT_EQ(kMicros, calls[key]) << label;
      EXPECT_TRUE(gemm == found[key]) << label << " " << found[key].m << " " << found[key].n;
    };
    const auto f = GemmFormat::kBf16;
    one(labels.fprop, {.m = N, .n = out, .k = in, .a = f, .b = f});
    one(labels.dgrad, {.m = N, .n = in, .k = out, .a = f, .b = f});
    one(labels.wgrad, {.m = out, .n = in, .k = N, .a = f, .b = f});
  };
  for (int64_t layer = 0; layer < c.model.n_layers; ++layer) {
    for (size_t i = 0; i < kLinearLabels.size(); ++i) {
      const LinearShape shape = linear_shape(c.model, static_cast<LinearKind>(i));
      expect(layer, kLinearLabels[i], shape.out, shape.in);
    }
  }
  expect(-1, kHeadLabels, c.model.padded_vocab(), c.model.width);
  EXPECT_EQ(static_cast<size_t>(3 * (4 * c.model.n_layers + 1)), found.size());
}

TEST(TimedOps, OperandsHaveTheirFormats) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, config_of("nvfp4", TimingLevel::kOps));
  FixedBatches batches = batches_of(trainer.config());
  const StepResult step = trainer.step(batches, 1e-3, 1);
  std::set<GemmFormat> formats;
  for (const TimeSpan& span : trainer.timeline().spans()) {
    if (span.call != "gemm") continue;
    formats.insert(span.gemm.a);
    EXPECT_EQ(span.gemm.a, span.gemm.b);  // of this recipe
    if (span.layer < 0) {
      EXPECT_EQ(GemmFormat::kBf16, span.gemm.a);
    }
  }
  EXPECT_TRUE(formats.contains(GemmFormat::kNvfp4));
  EXPECT_GT(of(step, Category::kGemmNvfp4), 0.0);
  EXPECT_GT(of(step, Category::kQuant), 0.0);
  EXPECT_EQ(0.0, of(step, Category::kGemmMxfp8E4m3));
}

// What is added up over the micro-batches is a call like any other: not a gap.
TEST(TimedOps, SumsOverMicroBatchesAreNoted) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, config_of("bf16", TimingLevel::kOps));
  FixedBatches batches = batches_of(trainer.config());
  trainer.step(batches, 1e-3, 1);
  int64_t n_adds = 0;
  for (const TimeSpan& span : trainer.timeline().spans()) {
    if (span.call != "add") continue;
    ++n_adds;
    EXPECT_EQ(kGradientSumLabel, span.label);
    EXPECT_EQ(Category::kOptim, span.category);
  }
  const auto n_buckets = static_cast<int64_t>(trainer.shards().buckets.size());
  EXPECT_EQ((kMicros - 1) * n_buckets, n_adds);
}

// A fused call reaches the backend as it is, and is not taken apart into calls of its own.
TEST(TimedOps, FusedCallsStayFused) {
  const Config c = config_of("bf16", TimingLevel::kOps);
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, c);
  FixedBatches batches = batches_of(c);
  trainer.step(batches, 1e-3, 1);
  int64_t n_fused = 0;
  for (const TimeSpan& span : trainer.timeline().spans()) {
    n_fused += span.call == "residual_rmsnorm_forward" ? 1 : 0;
    EXPECT_TRUE(span.call != "add" || span.label == kGradientSumLabel);
  }
  EXPECT_EQ(kMicros * 2 * c.model.n_layers, n_fused);  // all norms but the first
}

TEST(TimedOps, NothingIsNotedOfAnEvaluation) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, config_of("bf16", TimingLevel::kOps));
  FixedBatches batches = batches_of(trainer.config());
  trainer.step(batches, 1e-3, 1);
  const size_t n = trainer.timeline().spans().size();
  trainer.evaluate(batches.next());
  EXPECT_EQ(n, trainer.timeline().spans().size());
}

}  // namespace
}  // namespace qstep::trainer::testing
