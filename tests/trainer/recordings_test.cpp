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

// What ranks that train a configuration came to, and how.
struct RankRun {
  std::vector<float> results;
  std::vector<size_t> n_waits;  // in each step
  std::vector<std::vector<std::byte>> state;
};

// Each rank of `comm` its share of a step's batches; an evaluation in the midst of it.
RankRun train(ops::Ops& ops, parallel::Comm& comm, const Config& config) {
  Trainer trainer(ops, config, comm);
  const int64_t n_data = comm.size() / config.parallel.tensor;
  const int64_t n_micros = config.train.micros_per_step() / n_data;
  const int64_t data_rank = comm.rank() / config.parallel.tensor;
  FixedBatches batches(
      learnable_batches(n_micros, 960 + static_cast<uint64_t>(n_micros * data_rank)));
  const test::Batch held_out = learnable_batch(77);
  RankRun run;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const StepResult result = trainer.step(batches, 3e-3 / static_cast<double>(step), step);
    run.results.push_back(result.loss);
    run.results.push_back(result.grad_norm);
    const std::span<const TimeSpan> waits = trainer.timeline().spans();
    run.n_waits.push_back(waits.size());
    // For every updated weight, unless an evaluation has wanted it before.
    const bool arrive = n_data > 1 && (step == 3 || step == 5);
    EXPECT_EQ(arrive ? trainer.shards().buckets.size() : 0,
              std::count_if(waits.begin(), waits.end(), [](const TimeSpan& wait) {
                return wait.category == Category::kParamGather;
              }));
    if (step == 1 || step == 3) {
      run.results.push_back(trainer.evaluate({held_out.tokens, held_out.targets}));
    }
  }
  trainer.refresh_weights();
  run.state = state_of(trainer);
  return run;
}

struct RanksCase {
  const char* recipe;
  int data = 1, tensor = 1;
  int64_t micros_per_rank = 1;
  Reduction reduction = Reduction::kTree;
};
class RecordedRanks : public ::testing::TestWithParam<RanksCase> {};
INSTANTIATE_TEST_SUITE_P(Meshes, RecordedRanks,
                         ::testing::Values(RanksCase{"nvfp4", 2, 1, 1}, RanksCase{"nvfp4", 2, 1, 4},
                                           RanksCase{"fp8-delayed", 3, 1, 3, Reduction::kRank},
                                           RanksCase{"fp8-current", 1, 2, 2},
                                           RanksCase{"nvfp4", 1, 2, 1}, RanksCase{"mxfp8", 2, 2, 4},
                                           RanksCase{"nvfp4", 2, 2, 3, Reduction::kRank}),
                         [](const auto& test) {
                           const RanksCase& c = test.param;
                           return test::test_name(fmt::format("{}_{}x{}_{}", c.recipe, c.data,
                                                              c.tensor, c.micros_per_rank));
                         });

// Weights that arrive, gradients that leave and what a tensor group tells its ranks lie between
// recordings; the host makes no other call of the model.
TEST_P(RecordedRanks, HaveTheBitsOfCalls) {
  const RanksCase& c = GetParam();
  Config config = recipe_config(load_recipe(c.recipe), c.data * c.micros_per_rank, kSteps);
  config.parallel.tensor = c.tensor;
  config.parallel.reduction = c.reduction;
  config.timing.level = TimingLevel::kPhases;
  test::run_ranks(c.data * c.tensor, [&](parallel::Comm& comm) {
    const auto cpu = ops::make_cpu_ops();
    RecordingOps device;
    const RankRun expected = train(*cpu, comm, config), found = train(device, comm, config);
    EXPECT_EQ(expected.results, found.results);
    EXPECT_EQ(expected.n_waits, found.n_waits);
    EXPECT_TRUE(expected.state == found.state);
    // Made in the first step and, forward, in two evaluations.
    const int64_t n_layers = config.model.n_layers;
    EXPECT_EQ(
        c.micros_per_rank * n_layers,
        std::count(device.direct_calls.begin(), device.direct_calls.end(), "attention_backward"));
    EXPECT_EQ(
        (c.micros_per_rank + 2) * n_layers,
        std::count(device.direct_calls.begin(), device.direct_calls.end(), "attention_forward"));
    EXPECT_GT(device.n_runs, device.n_recordings);
  });
}

// The time of a quantizer that asks its group for an amax is its own, but for the wait.
TEST(Recordings, OfATensorGroupHaveEveryCallAndWaitOfEveryStep) {
  Config config = recipe_config(load_recipe("fp8-current"), 2, kSteps);
  config.parallel.tensor = 2;
  config.timing.level = TimingLevel::kOps;
  test::run_ranks(2, [&](parallel::Comm& comm) {
    RecordingOps device;
    Trainer trainer(device, config, comm);
    FixedBatches batches(learnable_batches(2, 980));
    std::vector<std::string> first;
    for (int64_t step = 1; step <= kSteps; ++step) {
      SCOPED_TRACE(step);
      trainer.step(batches, 1e-3, step);
      std::vector<std::string> spans;
      int64_t quantizers_that_waited = 0;
      for (const TimeSpan& s : trainer.timeline().spans()) {
        spans.push_back(
            fmt::format("{} {} {} {}", category_name(s.category), s.call, s.label, s.layer));
        EXPECT_LE(s.when.begin, s.when.end) << spans.back();
        EXPECT_GE(s.own_ns(), 0) << spans.back();
        // Two of the device's calls: the amax ahead of the wait, the codes behind it.
        quantizers_that_waited += s.call == "quantize" && s.waited_ns > 0;
      }
      if (step == 1) first = spans;
      EXPECT_EQ(first, spans);
      EXPECT_GT(quantizers_that_waited, 0);
    }
    EXPECT_GT(device.n_runs, device.n_recordings);
  });
}

// A message to a rank that died.
TEST(Recordings, AreMadeAnewWhereAnErrorEndedOne) {
  RecordingOps device;
  Timeline timer;
  Recordings recordings(device, timer, true);
  std::vector<float> x(4);
  bool fails = false;
  int n_messages = 0;
  const auto part = [&] {
    recordings.run({}, {}, [&] {
      device.zero(ops::view(std::span(x), 1, 4));
      recordings.unrecorded([&] {
        if (fails) throw ops::Error(ops::ExitCode::kPeerDied, "a rank died");
        ++n_messages;
      });
      device.zero(ops::view(std::span(x), 1, 4));
    });
  };
  part();
  fails = true;
  EXPECT_THROW(part(), ops::Error);
  EXPECT_EQ(2u, device.direct_calls.size());
  device.zero(ops::view(std::span(x), 1, 4));
  EXPECT_EQ(3u, device.direct_calls.size());
  fails = false;
  for (int i = 0; i < 3; ++i) part();
  EXPECT_EQ(3u, device.direct_calls.size());
  EXPECT_EQ(4, n_messages);
  EXPECT_EQ(1 + 2, device.n_recordings);
  EXPECT_EQ(2 * 2, device.n_runs);
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
