// Traces of whole runs on several ranks: the same times as the rows, arrows between the ranks, and
// files that a kill or a resume leaves whole.
#include <fmt/ranges.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "tests/trainer/ranks_fixture.h"
#include "tests/trainer/trace_testing.h"
#include "trainer/report/report_json.h"

namespace qstep::trainer::testing {
namespace {

class RanksTrace : public RanksTest {
 protected:
  std::string trace(const std::string& name, int rank) const { return trace_path(dir(name), rank); }
  std::string rank_rows(const std::string& name, int rank) const {
    return dir(name) + fmt::format("/metrics.rank{:05}.jsonl", rank);
  }
  std::vector<Json> traces(const std::string& name, int n_ranks) const {
    std::vector<Json> all;
    for (int rank = 0; rank < n_ranks; ++rank) {
      all.push_back(Json::parse(text_of(trace(name, rank)), nullptr, false));
      EXPECT_TRUE(all.back().is_array()) << trace(name, rank);
    }
    return all;
  }
  std::vector<int64_t> traced_steps(const std::string& name, int rank) const {
    return steps_of(slices_of(events_of(trace(name, rank)), Lane::kMain));
  }

  // Every collective of a rank's group has an arrow from the rank before and one to the next.
  static void expect_arrows(const std::vector<Json>& all, const std::map<std::string, int>& sizes) {
    const Arrows arrows = arrows_of(all);
    EXPECT_EQ(arrows.begun, arrows.ended);
    for (const auto& [id, n] : arrows.begun) EXPECT_EQ(1, n) << id;
    double expected = 0;
    for (const Json& events : all) {
      for (const TracedSlice& slice : slices_of(events, Lane::kCommunication)) {
        const int size = sizes.at(slice.event.at("args").at("group"));
        expected += (size - 1.0) / size;  // arrows of a group, shared among its ranks
      }
    }
    EXPECT_NEAR(expected, static_cast<double>(arrows.begun.size()), 1e-6);
    EXPECT_GT(expected, 0);
  }
};

TEST_F(RanksTrace, HasTheTimesOfTheRows) {
  finish("run", 2,
         {"precision.recipe=nvfp4", "timing.every=1", "timing.trace_first=2",
          "timing.trace_steps=3", "run.save_every=3"});
  const std::vector<Json> all = traces("run", 2);
  expect_arrows(all, {{"data", 2}});
  for (int rank = 0; rank < 2; ++rank) {
    const Json& events = all[static_cast<size_t>(rank)];
    const std::vector<TracedSlice> slices = slices_of(events, Lane::kMain);
    EXPECT_EQ((std::vector<int64_t>{2, 3, 4}), steps_of(slices));
    std::map<std::string, double> rows;
    for (const Json& row : rows_of(rank_rows("run", rank), "phase")) {
      if (row.at("step") >= 2 && row.at("step") <= 4)
        rows[row.at("phase")] += row.at("ms").get<double>();
    }
    const std::map<std::string, double> traced = times_by_category(slices);
    EXPECT_EQ(rows.size(), traced.size());
    // Both are sums of whole nanoseconds.
    for (const auto& [category, ms] : traced) EXPECT_NEAR(rows[category], ms, 1e-6) << category;
    // The lanes beside it; the run saves and evaluates behind step 3.
    for (const Lane lane : {Lane::kCommunication, Lane::kLoader, Lane::kCheckpoint}) {
      EXPECT_FALSE(slices_of(events, lane).empty()) << static_cast<int>(lane);
    }
    EXPECT_EQ("save step 3", slices_of(events, Lane::kCheckpoint)[0].name());
    EXPECT_TRUE(std::any_of(slices.begin(), slices.end(),
                            [](const TracedSlice& s) { return s.name() == "evaluation"; }));
    std::map<std::string, int64_t> owners, counted;
    for (const Json& row : rows_of(rank_rows("run", rank), "memory")) {
      owners[row.at("owner")] = row.at("bytes");
    }
    int64_t resident = 0;
    for (const Json& event : events) {
      if (event.at("ph") != "C") continue;
      const Json& args = event.at("args");
      if (event.at("name") == "resident memory") {
        resident = args.at("bytes");
      } else {
        counted = args.get<std::map<std::string, int64_t>>();
      }
    }
    EXPECT_EQ(owners, counted);
    int64_t sum = 0;
    for (const auto& [owner, bytes] : owners) sum += bytes;
    EXPECT_GT(resident, sum);
  }

  std::vector<int64_t> tagged;
  for (const Json& row : rows_of(metrics("run"), "step")) {
    if (row.value("tags", Json::array()) == Json{"profiler"}) tagged.push_back(row.at("step"));
  }
  EXPECT_EQ((std::vector<int64_t>{2, 3, 4}), tagged);
}

// Two measures of exposed communication. What differs is waits that nothing was under way for,
// which return at once, and what runs beside waits for batches, of which there are hardly any: more
// says that an event stands in a wrong place.
TEST_F(RanksTrace, ExposedCommunicationIsWhatWasWaited) {
  constexpr double kOfAStep = 0.02;
  finish("run", 4, {"parallel.tensor=2", "precision.recipe=nvfp4", "timing.every=1"});
  for (int rank = 0; rank < 4; ++rank) {
    SCOPED_TRACE(rank);
    double waited = 0, exposed = 0, batches = 0, step_ms = 0;
    for (const Json& row : rows_of(rank_rows("run", rank), "phase")) {
      const std::string phase = row.at("phase");
      const double ms = row.at("ms");
      if (phase == "data_wait") batches += ms;
      if (phase == "grad_reduce" || phase == "param_gather" || phase == "tp_comm") waited += ms;
    }
    for (const Json& row : rows_of(rank_rows("run", rank), "comm")) {
      exposed += row.at("exposed_ms").get<double>();
    }
    for (const Json& row : rows_of(metrics("run"), "step")) {
      step_ms += row.at("step_ms").get<double>();
    }
    EXPECT_GT(waited, 0);
    EXPECT_LE(waited - exposed, kOfAStep * step_ms);
    EXPECT_LE(exposed - waited, kOfAStep * step_ms + batches);
    RecordProperty(fmt::format("exposed_less_waited_of_a_step_rank{}", rank),
                   fmt::format("{}", (exposed - waited) / step_ms));
  }
}

TEST_F(RanksTrace, ArrowsOfDataAndTensorGroups) {
  finish("run", 4, {"parallel.tensor=2", "timing.trace_first=6", "timing.trace_steps=9"});
  const std::vector<Json> all = traces("run", 4);
  expect_arrows(all, {{"world", 4}, {"data", 2}, {"tensor", 2}});
  std::set<std::string> groups;
  for (const TracedSlice& slice : slices_of(all[3], Lane::kCommunication)) {
    groups.insert(slice.event.at("args").at("group"));
  }
  EXPECT_EQ((std::set<std::string>{"data", "tensor", "world"}), groups);
}

TEST_F(RanksTrace, AResumedRunGoesOnInItsFiles) {
  const Words words{"train.steps=8", "run.save_every=2", "timing.trace_first=2",
                    "timing.trace_steps=6"};
  finish("run", 2, words);
  for (int64_t step = 5; step <= 8; ++step) std::filesystem::remove_all(checkpoint("run", step));
  finish("run", 2, words);
  expect_arrows(traces("run", 2), {{"data", 2}});
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ((std::vector<int64_t>{2, 3, 4, 5, 6, 7}), traced_steps("run", rank));
  }
  for (int64_t step = 3; step <= 8; ++step) std::filesystem::remove_all(checkpoint("run", step));
  finish("run", 1, {"train.steps=8", "run.save_every=2"});
  for (int rank = 0; rank < 2; ++rank)
    EXPECT_EQ((std::vector<int64_t>{2}), traced_steps("run", rank));
}

// SIGKILL to one rank or to all, somewhere in or behind a step: what is there can be read, and the
// report says how the run ended.
TEST_F(RanksTrace, AKillLeavesFilesThatCanBeRead) {
  for (const std::vector<int>& killed : {std::vector{0}, std::vector{1}, std::vector{0, 1}}) {
    const std::string name = fmt::format("killed{}", fmt::join(killed, "and"));
    SCOPED_TRACE(name);
    MpiRun run(notes(), 2,
               train(name, {"train.steps=1000000", "train.eval_every=0", "timing.every=1",
                            "timing.trace_first=1", "timing.trace_steps=1000000"}));
    ASSERT_TRUE(wait_for_steps(run, name, 5)) << run.log();
    // None sees another one's end before its own.
    for (const int number : {SIGSTOP, SIGKILL}) {
      for (const int rank : killed) run.signal(rank, number);
    }
    const std::vector<int> codes = run.wait_codes();
    for (const int rank : killed) {
      ASSERT_EQ(128 + SIGKILL, codes[static_cast<size_t>(rank)]) << run.log();
    }
    for (int rank = 0; rank < 2; ++rank) {
      const std::vector<int64_t> steps = traced_steps(name, rank);
      ASSERT_GE(steps.size(), 4u);
      for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(static_cast<int64_t>(i) + 1, steps[i]);
      // Every whole line is a row.
      const std::string text = text_of(rank_rows(name, rank));
      size_t n_rows = 0;
      for (const char* type : {"rank_run", "memory", "phase", "gemm", "comm"}) {
        n_rows += rows_of(rank_rows(name, rank), type).size();
      }
      EXPECT_EQ(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')), n_rows);
    }
    const report::Run read = report::read_run(dir(name));
    EXPECT_TRUE(read.problems.empty()) << read.problems.front();
    const auto report = report::report_json({&read, 1});
    const auto& ending = report.at("runs").at(0).at("header").at("ending");
    const std::string says = killed.size() == 2 ? "killed" : fmt::format("rank {}", killed[0]);
    EXPECT_NE(std::string::npos, ending.dump().find(says)) << ending;
    EXPECT_EQ(killed.size() == 1, ending.dump().find("died") != std::string::npos) << ending;
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
