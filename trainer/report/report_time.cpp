// Step time, breakdown and throughput of a run.
#include <algorithm>
#include <cmath>
#include <set>

#include "trainer/report/report_sections.h"
#include "trainer/report/report_windows.h"

namespace qstep::trainer::report {

namespace {

const TimesMs& times_of(const Step& step, bool breakdown) {
  return breakdown ? step.breakdown_ms : step.phases_ms;
}

// Mean over steps [begin, end) of `steps`, by phase in the order of `phases`.
std::vector<double> mean_times(const Run& run, const std::vector<size_t>& steps, size_t begin,
                               size_t end, const std::vector<std::string>& phases, bool breakdown) {
  std::vector<double> means;
  for (const std::string& phase : phases) {
    double sum = 0;
    for (size_t i = begin; i < end; ++i) {
      const TimesMs& times = times_of(run.steps[steps[i]], breakdown);
      const auto found = times.find(phase);
      if (found != times.end()) sum += found->second;
    }
    means.push_back(sum / static_cast<double>(end - begin));
  }
  return means;
}

// The phases over the steps: means over at most kParts parts.
Json over_steps(const Run& run, const std::vector<size_t>& steps,
                const std::vector<std::string>& phases, bool breakdown) {
  constexpr size_t kParts = 120;
  const size_t parts = std::min(kParts, steps.size());
  Json json = {{"first_step", Json::array()}, {"last_step", Json::array()}};
  for (const std::string& phase : phases) json["ms"][phase] = Json::array();
  for (size_t part = 0; part < parts; ++part) {
    const size_t begin = part * steps.size() / parts, end = (part + 1) * steps.size() / parts;
    json["first_step"].push_back(run.steps[steps[begin]].step);
    json["last_step"].push_back(run.steps[steps[end - 1]].step);
    const std::vector<double> means = mean_times(run, steps, begin, end, phases, breakdown);
    for (size_t i = 0; i < phases.size(); ++i)
      json["ms"][phases[i]].push_back(short_number(means[i]));
  }
  return json;
}

// Phases of each block, from the rows of the ranks.
Json layers_json(const Run& run, const StepChoice& choice) {
  if (run.phases.empty()) {
    return missing("no per-rank rows: timing.level was off, or the run is of an older qstep");
  }
  const WindowChoice windows(run.phases, choice);
  std::map<int64_t, TimesMs> layers;
  for (const PhaseSum& row : run.phases) {
    if (windows.contains(row)) layers[row.layer][row.phase] += row.ms / windows.rank_steps();
  }
  Json json = {{"available", true}, {"n_steps", windows.steps()}, {"layers", Json::array()}};
  for (const auto& [layer, times] : layers) {
    double sum = 0;
    Json phases = Json::object();
    for (const auto& [phase, ms] : times) {
      phases[phase] = ms;
      sum += ms;
    }
    json["layers"].push_back({{"layer", layer}, {"ms", sum}, {"phases_ms", phases}});
  }
  return json;
}

}  // namespace

Json step_time_section(const Run& run, const StepChoice& choice) {
  if (run.steps.empty()) return missing("no step was finished");
  Json json = {{"available", true},
               {"of", "wall time of the first rank's steps"},
               {"n_steps", run.steps.size()},
               {"first_step", run.steps.front().step},
               {"last_step", run.steps.back().step},
               {"n_warm_up", choice.n_warm_up},
               {"n_tagged", choice.tagged.size()},
               {"all_tagged", choice.measured.empty()}};
  const std::vector<double> times = step_times(run, steps_to_use(run, choice));
  json.update(summary(times, "_ms"));
  std::map<std::string, std::vector<double>> by_tag;
  Json listed = Json::array();
  constexpr size_t kListed = 200;
  for (const TaggedStep& tagged : choice.tagged) {
    const Step& step = run.steps[tagged.at];
    for (const std::string& tag : tagged.tags) by_tag[tag].push_back(step.step_ms);
    if (listed.size() < kListed) {
      listed.push_back({{"step", step.step}, {"step_ms", step.step_ms}, {"tags", tagged.tags}});
    }
  }
  json["tags"] = Json::array();
  for (const auto& [tag, tag_times] : by_tag) {
    json["tags"].push_back({{"tag", tag}, {"n", tag_times.size()}, {"p50_ms", median(tag_times)}});
  }
  json["tagged"] = listed;
  json["tagged_not_listed"] = choice.tagged.size() - listed.size();
  json["histogram_ms"] = histogram(times);
  std::vector<int64_t> numbers;
  std::vector<double> all;
  for (const Step& step : run.steps) {
    numbers.push_back(step.step);
    all.push_back(step.step_ms);
  }
  json["curve_ms"] = curve(numbers, all);
  return json;
}

Json breakdown_section(const Run& run, const StepChoice& choice) {
  const std::vector<size_t> steps = steps_to_use(run, choice);
  if (steps.empty()) return missing("no step was finished");
  const bool breakdown = std::all_of(steps.begin(), steps.end(),
                                     [&](size_t i) { return !run.steps[i].breakdown_ms.empty(); });
  std::set<std::string> names;
  double step_ms = 0, worst = 0;
  for (const size_t i : steps) {
    double sum = 0;
    for (const auto& [phase, ms] : times_of(run.steps[i], breakdown)) {
      names.insert(phase);
      sum += ms;
    }
    step_ms += run.steps[i].step_ms / static_cast<double>(steps.size());
    worst = std::max(worst, std::fabs(sum / run.steps[i].step_ms - 1));
  }
  if (names.empty()) return missing("the rows of the steps have no phases");

  const std::vector<std::string> phases(names.begin(), names.end());
  const std::vector<double> means = mean_times(run, steps, 0, steps.size(), phases, breakdown);
  std::vector<size_t> order(phases.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return means[a] > means[b]; });
  std::vector<std::string> sorted;
  Json rows = Json::array();
  double sum = 0;
  for (const size_t i : order) {
    sorted.push_back(phases[i]);
    rows.push_back({{"phase", phases[i]}, {"mean_ms", means[i]}, {"share", means[i] / step_ms}});
    sum += means[i];
  }
  return {{"available", true},
          {"source", breakdown ? "breakdown_ms" : "phases_ms"},
          {"n_steps", steps.size()},
          {"step_ms_mean", step_ms},
          {"sum_ms", sum},
          {"worst_sum_error", worst},
          {"phases", rows},
          {"by_layer", layers_json(run, choice)},
          {"over_steps", over_steps(run, steps, sorted, breakdown)}};
}

}  // namespace qstep::trainer::report
