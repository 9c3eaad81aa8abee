// Traces of one rank: the file through writes, kills and resumes, and what is in it.
#include "trainer/run/trace_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/step_testing.h"
#include "tests/trainer/trace_testing.h"
#include "trainer/run/trace_events.h"
#include "trainer/timing/breakdown.h"

namespace qstep::trainer::testing {
namespace {

class Trace : public ::testing::Test {
 protected:
  Trace() { std::filesystem::create_directories(folder_ / "trace"); }

  static void put_step(TraceFile& file, int64_t step) {
    file.open_slice(Lane::kMain, "step", kStepCategory, {step * 1000, step * 1000 + 900})
        .put("step", step);
    file.close();
  }
  Json events() const { return Json::parse(text_of(path_), nullptr, false); }
  std::vector<int64_t> steps() const { return steps_of(slices_of(events(), Lane::kMain)); }

  TemporaryFolder folder_;
  std::string path_ = trace_path(folder_ / "", 0);
};

TEST_F(Trace, IsWholeBehindEveryWrite) {
  TraceFile file(path_, 0, "a \"host\"", {.origin_unix_ns = 5, .offset_ns = 250});
  for (int64_t step = 1; step <= 3; ++step) {
    put_step(file, step);
    file.write();
    file.write();  // nothing new
    ASSERT_TRUE(events().is_array());
    EXPECT_EQ(static_cast<size_t>(step), steps().size());
  }
  EXPECT_EQ("rank 0 (a \"host\")", events()[0].at("args").at("name"));
  const TracedSlice first = slices_of(events(), Lane::kMain).at(0);
  EXPECT_EQ(1250, first.begin);  // to the nanosecond
  EXPECT_EQ(2150, first.end);
}

// From a checkpoint behind step 2, after a kill that cut the last write anywhere.
TEST_F(Trace, AResumedRunGoesOnBehindItsCheckpoint) {
  for (const size_t cut : {0, 1, 3, 40, 100}) {
    std::filesystem::remove(path_);
    {
      TraceFile file(path_, 0, "host", {.origin_unix_ns = 77, .offset_ns = 0});
      for (int64_t step = 1; step <= 4; ++step) put_step(file, step);
      file.write();
    }
    std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - cut);
    EXPECT_EQ(77, keep_trace(path_, 2).value());
    EXPECT_EQ((std::vector<int64_t>{1, 2}), steps());
    {
      TraceFile file(path_, 0, "host", {.origin_unix_ns = 77, .offset_ns = 0});
      for (int64_t step = 3; step <= 4; ++step) put_step(file, step);
      file.write();
    }
    EXPECT_EQ((std::vector<int64_t>{1, 2, 3, 4}), steps()) << cut;
  }
}

TEST_F(Trace, OfLaterStepsAloneDisappears) {
  for (int rank = 0; rank < 3; ++rank) {
    TraceFile file(trace_path(folder_ / "", rank), rank, "host", {});
    put_step(file, 4);
    if (rank == 2) put_step(file, 3);
    file.write();
  }
  drop_traces(folder_ / "", 1, 3);
  EXPECT_EQ((std::vector<int64_t>{4}), steps());
  EXPECT_FALSE(std::filesystem::exists(trace_path(folder_ / "", 1)));
  EXPECT_FALSE(keep_trace(trace_path(folder_ / "", 1), 3).has_value());
}

TEST_F(Trace, SaysWhatCannotBeWritten) {
  const auto error_of = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const ops::Error& error) {
      EXPECT_EQ(ops::ExitCode::kDisk, error.code());
      return error.what();
    }
    return "no error";
  };
  const std::string missing = folder_ / "missing/rank00000.json";
  EXPECT_NE(std::string::npos, error_of([&] {
                                 TraceFile(missing, 0, "host", {});
                               }).find(missing + ": cannot open for writing: No such file"));
  const std::string full = error_of([] { TraceFile("/dev/full", 0, "host", {}).write(); });
  EXPECT_NE(std::string::npos, full.find("/dev/full: cannot write events: No space left")) << full;
}

// One inside the other, and the same times as the breakdown of the step.
TEST_F(Trace, OfAStepHasItsBreakdown) {
  Config c = step_config(tiny_model(), 2, 8);
  set_recipe(c, "nvfp4");
  c.timing.level = TimingLevel::kOps;
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, c);
  FixedBatches batches({random_batch(c.model, 2, 8, 71)});
  const StepResult result = trainer.step(batches, 1e-3, 1);
  TraceFile file(path_, 0, "host", {});
  trace_step(file, 1, trainer.timeline());
  file.write();

  const std::vector<TracedSlice> slices = slices_of(events(), Lane::kMain);
  std::map<std::string, double> ms = times_by_category(slices);
  double sum_ms = 0;
  for (const auto& [category, own_ms] : ms) sum_ms += own_ms;
  ms["host_gap"] = static_cast<double>(slices.at(0).end - slices.at(0).begin) * 1e-6 - sum_ms;
  for (size_t i = 0; i < kCategoryNames.size(); ++i) {
    // Sums of at most 1e5 ns, exact in ns, added as ms in another order.
    EXPECT_NEAR((*result.breakdown_ms)[i], ms[std::string(kCategoryNames[i])], 1e-6)
        << kCategoryNames[i];
  }

  int n_gemms = 0, n_layers = 0, n_phases = 0;
  for (const TracedSlice& slice : slices) {
    EXPECT_EQ(slice.category() == kStepCategory, slice.depth == 0) << slice.event;
    n_phases += slice.category() == "phase" ? 1 : 0;
    n_layers += slice.category() == "layer" ? 1 : 0;
    if (!slice.name().starts_with("gemm ")) continue;
    ++n_gemms;
    const Json& args = slice.event.at("args");
    const double flops =
        2.0 * args.at("m").get<double>() * args.at("n").get<double>() * args.at("k").get<double>();
    EXPECT_NEAR(flops / (slice.own_ms() * 1e9), args.at("tflops").get<double>(),
                1e-9 * args.at("tflops").get<double>());
    EXPECT_TRUE(args.contains("format_a") && args.contains("format_b"));
  }
  EXPECT_EQ(3 * (n_modules(c.model) + 1), n_gemms);
  EXPECT_GE(n_layers, 2 * c.model.n_layers);  // forward and backward
  EXPECT_GE(n_phases, 4);
}

// Three ranks: two arrows, from each to the next.
TEST_F(Trace, ArrowsLeadThroughTheRanksOfAGroup) {
  std::vector<Json> traces;
  for (int rank = 0; rank < 3; ++rank) {
    const std::string path = trace_path(folder_ / "", rank);
    TraceFile file(path, rank, "host", {});
    std::vector<CollectiveTime> collectives;
    for (const char* group : {"world", "world/0:1", "elsewhere"}) {
      collectives.push_back({.when = {1000 * rank, 5000 + rank},
                             .ended = true,
                             .group = group,
                             .operation = "all_gather",
                             .sequence = 8,
                             .bytes = 64});
    }
    trace_collectives(file, collectives,
                      {{"world", {"data", rank, 3}}, {"world/0:1", {"tensor", 0, 1}}}, 1);
    file.write();
    traces.push_back(events_of(path));
  }
  const Arrows arrows = arrows_of(traces);
  EXPECT_EQ(2u, arrows.begun.size());
  EXPECT_EQ(arrows.begun, arrows.ended);
  for (const auto& [id, n] : arrows.begun) EXPECT_EQ(1, n) << id;
  EXPECT_EQ(2u, slices_of(traces[0], Lane::kCommunication).size());  // nobody knows "elsewhere"
  EXPECT_EQ("data", slices_of(traces[0], Lane::kCommunication)[0].event.at("args").at("group"));
}

}  // namespace
}  // namespace qstep::trainer::testing
