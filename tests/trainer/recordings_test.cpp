// Steps whose calls reach the device as recordings (trainer/timing/recordings.h): the bits of steps
// that make every call, from the same places in the timeline. The recorder stands for CUDA graphs
// (tests/support/recording_ops.h).
#include "trainer/timing/recordings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/support/recording_ops.h"
#include "tests/support/test_name.h"
#include "tests/support/thread_comm.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/config/config_options.h"
#include "trainer/run/ledger.h"

namespace qstep::trainer::testing {
namespace {

using test::RecordingOps;

constexpr int64_t kMicros = 4, kSteps = 5;

struct Case {
  const char* recipe;
  Reduction reduction;
};

std::vector<std::vector<std::byte>> state_of(Trainer& trainer) {
  Parameters& p = trainer.parameters();
  std::vector<std::vector<std::byte>> state;
  for (const ParameterGroup* group : {&p.weight, &p.master, &p.adam_m, &p.adam_v}) {
    state.push_back(bytes_of(*group));
  }
  for (const NamedTensor& named : trainer.precision_state()) {
    const auto* const data = static_cast<const std::byte*>(named.tensor.data);
    state.emplace_back(data, data + named.tensor.bytes());
  }
  return state;
}

// A trainer on the CPU and one whose device takes recordings, step by step with the same batches.
class Twins {
 public:
  explicit Twins(const Config& config)
      : config_(config), on_cpu_(*cpu_, config), recorded_(device_, config) {}

  // The next step, at a rate of its own.
  void step() {
    const double lr = 3e-3 / static_cast<double>(step_ + 1);
    ++step_;
    device_.direct_calls.clear();
    const StepResult expected = on_cpu_.step(batches_, lr, step_);
    const StepResult found = recorded_.step(the_same_, lr, step_);
    EXPECT_EQ(expected.loss, found.loss) << "step " << step_;
    EXPECT_EQ(expected.grad_norm, found.grad_norm) << "step " << step_;
    EXPECT_EQ(expected.skipped, found.skipped) << "step " << step_;
    EXPECT_EQ(expected.non_finite_input, found.non_finite_input) << "step " << step_;
  }
  void evaluate() {
    const test::Batch batch = learnable_batch(77);
    const MicroBatch micro{batch.tokens, batch.targets};
    EXPECT_EQ(on_cpu_.evaluate(micro), recorded_.evaluate(micro));
  }
  void expect_same_state() { EXPECT_TRUE(state_of(on_cpu_) == state_of(recorded_)); }
  int64_t direct(std::string_view call) const {
    return std::count(device_.direct_calls.begin(), device_.direct_calls.end(), call);
  }

  Config config_;
  std::unique_ptr<ops::Ops> cpu_ = ops::make_cpu_ops();
  RecordingOps device_;
  Trainer on_cpu_, recorded_;

 private:
  FixedBatches batches_{learnable_batches(2 * kMicros + 1, 900)};
  FixedBatches the_same_{learnable_batches(2 * kMicros + 1, 900)};
  int64_t step_ = 0;
};

class RecordedSteps : public ::testing::TestWithParam<Case> {
 protected:
  static Config config() {
    Config c = recipe_config(load_recipe(GetParam().recipe), kMicros, 2 * kSteps);
    c.parallel.reduction = GetParam().reduction;
    return c;
  }
};
INSTANTIATE_TEST_SUITE_P(
    Recipes, RecordedSteps,
    ::testing::Values(Case{"bf16", Reduction::kTree}, Case{"bf16", Reduction::kRank},
                      Case{"nvfp4", Reduction::kTree}, Case{"nvfp4", Reduction::kRank},
                      Case{"fp8-delayed", Reduction::kTree}, Case{"fp8-current", Reduction::kRank},
                      Case{"mxfp8", Reduction::kTree}, Case{"quartet2", Reduction::kTree},
                      Case{"tetrajet2", Reduction::kRank}, Case{"nvfp4-4over6", Reduction::kTree}),
    [](const auto& test) {
      return test::test_name(std::string(test.param.recipe) + "_" +
                             std::string(choice_name(test.param.reduction)));
    });

TEST_P(RecordedSteps, GiveTheBitsOfCalls) {
  Twins twins(config());
  for (int64_t step = 1; step <= kSteps; ++step) {
    twins.step();
    // The host makes no call of the model any more, nor of the update.
    if (step > 2) {
      for (const char* call : {"gemm", "quantize", "attention_forward", "adamw", "square_sums"}) {
        EXPECT_EQ(0, twins.direct(call)) << call << ", step " << step;
      }
    }
    if (step % 2 == 0) twins.evaluate();
  }
  twins.expect_same_state();
  EXPECT_GT(twins.device_.n_runs, twins.device_.n_recordings);
}

TEST_P(RecordedSteps, QuantizeAWeightOnceAStep) {
  Twins twins(config());
  twins.step();
  const int64_t expected = twins.device_.n_quantized;
  for (int i = 0; i < 2; ++i) twins.step();
  const int64_t before = twins.device_.n_quantized;
  twins.device_.move_memory();  // what was recorded is recorded anew, in the middle of a run
  twins.step();
  EXPECT_EQ(expected, twins.device_.n_quantized - before);
  twins.step();
  EXPECT_EQ(before + 2 * expected, twins.device_.n_quantized);
  twins.expect_same_state();
}

TEST(Recordings, FollowARecipeIntoItsNextPhase) {
  const precision::Recipe nvfp4 = load_recipe("nvfp4");
  Config config =
      recipe_config(with_switch(nvfp4, 4, load_recipe("mxfp8").operands), kMicros, 2 * kSteps);
  Twins twins(config);
  for (int i = 0; i < 7; ++i) twins.step();
  EXPECT_EQ(0, twins.direct("gemm"));
  twins.expect_same_state();
}

// Counting waits for the device within calls.
TEST(Recordings, AreLeftOutWhereQuantizationsAreCounted) {
  Twins twins(recipe_config(load_recipe("nvfp4"), kMicros, 2 * kSteps));
  for (int i = 0; i < 3; ++i) twins.step();
  ASSERT_EQ(0, twins.direct("quantize"));
  struct Count final : QuantLedger {
    void add(int64_t, precision::OperandSlot, const ops::QuantStats& stats, bool) override {
      elements += stats.elements;
    }
    double elements = 0;
  } count;
  twins.recorded_.set_ledger(&count);
  twins.step();
  EXPECT_GT(count.elements, 0);
  EXPECT_GT(twins.direct("quantize"), 0);
  twins.recorded_.set_ledger(nullptr);
  twins.step();
  EXPECT_EQ(0, twins.direct("quantize"));
  twins.expect_same_state();
}

// Two ranks with four micro-batches each: weights arrive ahead of the first, gradients leave behind
// the last; the two between them exchange nothing.
TEST(Recordings, OfRanksAreWhatExchangesNothing) {
  const Config config = recipe_config(load_recipe("nvfp4"), 2 * kMicros, kSteps);
  const auto train = [&](ops::Ops& ops, parallel::Comm& comm) {
    Trainer trainer(ops, config, comm);
    FixedBatches batches(
        learnable_batches(kMicros, 960 + kMicros * static_cast<uint64_t>(comm.rank())));
    std::vector<float> results;
    for (int64_t step = 1; step <= kSteps; ++step) {
      const StepResult result = trainer.step(batches, 3e-3 / static_cast<double>(step), step);
      results.push_back(result.loss);
      results.push_back(result.grad_norm);
    }
    trainer.refresh_weights();
    return std::pair(results, state_of(trainer));
  };
  test::run_ranks(2, [&](parallel::Comm& comm) {
    const auto cpu = ops::make_cpu_ops();
    RecordingOps device;
    EXPECT_TRUE(train(*cpu, comm) == train(device, comm));
    // One for each of the two, in the second step; both again in every later one.
    EXPECT_EQ(2, device.n_recordings);
    EXPECT_EQ(2 * (kSteps - 2), device.n_runs);
  });
}

TEST(Recordings, CanBeTurnedOff) {
  Config config = recipe_config(load_recipe("nvfp4"), kMicros, kSteps);
  config.run.cuda_graphs = false;
  Twins twins(config);
  for (int i = 0; i < 3; ++i) twins.step();
  EXPECT_EQ(0, twins.device_.n_recordings);
  twins.expect_same_state();
}

// What calls are for, and the order and phases they come in, by the timeline.
std::vector<std::string> calls_of(const Timeline& timeline) {
  std::vector<std::string> calls;
  for (const TimeSpan& s : timeline.spans()) {
    if (is_wait(s.category)) continue;
    calls.push_back(fmt::format(
        "{} {} {} {} {} {}x{}x{}", kPhaseNames[static_cast<size_t>(s.phase)],
        category_name(s.category), s.call, s.label, s.layer, s.gemm.m, s.gemm.n, s.gemm.k));
  }
  return calls;
}

class RecordedTimeline : public ::testing::TestWithParam<TimingLevel> {};
INSTANTIATE_TEST_SUITE_P(Levels, RecordedTimeline,
                         ::testing::Values(TimingLevel::kPhases, TimingLevel::kOps),
                         [](const auto& test) { return std::string(choice_name(test.param)); });

TEST_P(RecordedTimeline, HasEveryCallOfEveryStep) {
  Config config = recipe_config(load_recipe("nvfp4"), kMicros, kSteps);
  config.timing.level = GetParam();
  Twins twins(config);
  const Timeline& timeline = twins.recorded_.timeline();
  std::vector<std::string> first;
  for (int64_t step = 1; step <= kSteps; ++step) {
    SCOPED_TRACE(step);
    twins.step();
    if (step == 1) first = calls_of(timeline);
    const std::vector<std::string> calls = calls_of(timeline);
    ASSERT_EQ(first.size(), calls.size());
    for (size_t i = 0; i < calls.size(); ++i) EXPECT_EQ(first[i], calls[i]) << "call " << i;
    int64_t end = timeline.step().begin;
    for (const TimeSpan& span : timeline.spans()) {
      if (is_wait(span.category)) continue;
      EXPECT_LE(end, span.when.begin) << span.call;
      EXPECT_LE(span.when.begin, span.when.end) << span.call;
      end = span.when.end;
    }
    EXPECT_LE(end, timeline.step().end);
    int64_t phase_end = timeline.step().begin;
    for (const PhaseSpan& phase : timeline.phases()) {
      EXPECT_EQ(phase_end, phase.when.begin);
      EXPECT_LE(phase.when.begin, phase.when.end);
      phase_end = phase.when.end;
    }
    if (GetParam() == TimingLevel::kOps) {
      EXPECT_EQ(timeline.step().end, phase_end);
    }
  }
  EXPECT_EQ(GetParam() == TimingLevel::kOps, !first.empty());
  EXPECT_GT(twins.device_.n_runs, 0);
}

}  // namespace
}  // namespace qstep::trainer::testing
