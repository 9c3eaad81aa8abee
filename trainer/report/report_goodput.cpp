// Goodput of a run: the wall time of all its starts, in buckets that add up to it.
#include <algorithm>
#include <ctime>

#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

namespace {

// "2026-11-21T22:24:12Z" of exit_reason.json; 0 where there is none.
int64_t recorded_end(const Run& run) {
  if (!run.exit_reason.is_object()) return 0;
  const auto time = run.exit_reason.find("time");
  if (time == run.exit_reason.end() || !time->is_string()) return 0;
  std::tm tm{};
  if (strptime(time->get<std::string>().c_str(), "%Y-%m-%dT%H:%M:%SZ", &tm) == nullptr) return 0;
  return static_cast<int64_t>(timegm(&tm));
}

double data_wait_ms(const Step& step) {
  for (const TimesMs* times : {&step.breakdown_ms, &step.phases_ms}) {
    for (const char* name : {"data_wait", "data"}) {
      const auto found = times->find(name);
      if (found != times->end()) return found->second;
    }
  }
  return 0;
}

// Seconds that rows account for in the steps [first, end).
double recorded_s(const Run& run, int64_t first, int64_t end) {
  double ms = 0;
  for (const Step& s : run.steps) ms += s.step >= first && s.step < end ? s.step_ms : 0;
  for (const Evaluation& e : run.evaluations) ms += e.step >= first && e.step < end ? e.eval_ms : 0;
  for (const Save& s : run.saves) ms += s.step >= first && s.step < end ? s.save_ms : 0;
  return ms * 1e-3;
}

}  // namespace

Json goodput_section(const Run& run, const StepChoice& choice) {
  if (run.steps.empty() || run.starts.empty()) return missing("no step was finished");
  double productive = 0, data = 0, skipped = 0, evaluation = 0, saving = 0;
  for (const Step& step : run.steps) {
    const double wait = data_wait_ms(step) * 1e-3, whole = step.step_ms * 1e-3;
    data += wait;
    (step.skipped ? skipped : productive) += whole - wait;
  }
  for (const Evaluation& e : run.evaluations) evaluation += e.eval_ms * 1e-3;
  for (const Save& s : run.saves) saving += s.save_ms * 1e-3;

  // What the first steps take beyond the median step; they train like the others.
  const double step_s = median(step_times(run, choice.measured)) * 1e-3;
  double warm_up = 0;
  for (size_t i = 0; i < choice.n_warm_up; ++i) {
    if (!run.steps[i].skipped) warm_up += run.steps[i].step_ms * 1e-3 - step_s;
  }
  warm_up = warm_up > 0 ? warm_up : 0;  // NaN where nothing was measured
  productive -= warm_up;

  // Earlier starts end where the next begins; what no row accounts for was lost: steps that were
  // done again, time between the processes, and their beginning.
  double between = 0;
  for (size_t i = 0; i + 1 < run.starts.size(); ++i) {
    const auto lasted =
        static_cast<double>(run.starts[i + 1].time_unix_s - run.starts[i].time_unix_s);
    between += std::max(0.0, lasted - recorded_s(run, run.starts[i].step, run.starts[i + 1].step));
  }
  const int64_t told = recorded_end(run);
  const int64_t end = told > 0 ? told : run.last_write_unix_s;
  const double sum = productive + warm_up + data + skipped + evaluation + saving + between;
  const double wall = std::max(sum, static_cast<double>(end - run.starts.front().time_unix_s));
  Json buckets = Json::array();
  const auto put = [&](const char* name, double s, const char* what) {
    buckets.push_back({{"bucket", name}, {"s", s}, {"share", s / wall}, {"what", what}});
  };
  put("productive", productive, "steps whose update counted");
  put("warm_up", warm_up, "the first steps, beyond the median step");
  put("data_stall", data, "steps waiting for a batch");
  put("skipped", skipped, "steps whose update was skipped");
  put("checkpoint", saving, "saving, while training waits");
  put("evaluation", evaluation, "on the validation part");
  put("restarts", between,
      "of earlier starts: lost steps, time between processes, their beginning");
  put("other", wall - sum, "of the last start: beginning, end, between steps");
  return {{"available", true},
          {"wall_s", wall},
          {"productive_share", productive / wall},
          {"starts", run.starts.size()},
          {"end", told > 0 ? "exit_reason.json" : "the last write of metrics.jsonl"},
          {"resolution_s", 1},
          {"buckets", buckets}};
}

}  // namespace qstep::trainer::report
