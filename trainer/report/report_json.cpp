#include "trainer/report/report_json.h"

#include <cmath>
#include <set>

#include "trainer/base/format.h"
#include "trainer/report/peer_log.h"
#include "trainer/report/report_comparison.h"
#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

namespace {

// The last part of the path, or as many parts as it takes to be unlike the others'.
std::vector<std::string> names_of(std::span<const Run> runs) {
  std::vector<std::string> names;
  for (const Run& run : runs) names.push_back(run.name);
  if (std::set<std::string>(names.begin(), names.end()).size() == names.size()) return names;
  names.clear();
  for (const Run& run : runs) names.push_back(run.path);
  return names;
}

std::string recipe_text(const Json& run) {
  const Json& recipe = run.at("header").at("recipe");
  return recipe.at("name").get<std::string>() +
         (recipe.at("emulated").get<bool>() ? " (emulated)" : "");
}

std::string ms_text(double ms) { return fmt::format("{:.4g} ms", ms); }

// "recipe nvfp4 (emulated): 49.9 ms a step (p50), 10.3 k tokens/s; ..."
std::string verdict_of(const Json& run) {
  const Json& header = run.at("header");
  std::string text = fmt::format("{}: ", recipe_text(run));
  const Json& time = run.at("step_time");
  if (!time.at("available").get<bool>()) return text + time.at("reason").get<std::string>() + ".";
  text += fmt::format("{} a step (median)", ms_text(time.at("p50_ms").get<double>()));
  const Json& per_s = run.at("throughput").at("tokens_per_s");
  if (per_s.is_number()) {
    text += fmt::format(", {} tokens/s", with_commas(std::llround(per_s.get<double>())));
  }
  const Json& breakdown = run.at("breakdown");
  if (breakdown.at("available").get<bool>()) {
    const Json& top = breakdown.at("phases").at(0);
    text += fmt::format(", {} {:.0f} % of the mean step", top.at("phase").get<std::string>(),
                        100 * top.at("share").get<double>());
  }
  const Json& sol = run.at("throughput").at("sol");
  if (sol.at("available").get<bool>()) {
    text += fmt::format(", SOL {}", share_text(sol.at("value").get<double>()));
  }
  const Json& loss = run.at("loss");
  const bool validated = loss.at("validation").at("available").get<bool>();
  const Json& last = validated ? loss.at("validation").at("last") : loss.at("last");
  if (last.is_number()) {
    text +=
        fmt::format("; {} loss {:.4f}", validated ? "validation" : "training", last.get<double>());
    const auto tokens = loss.at("tokens").get<int64_t>();
    if (tokens > 0) text += fmt::format(" behind {} tokens", count_text(tokens));
  } else {
    text += "; the loss is not finite";
  }
  text += ".";
  const auto state = header.at("ending").at("state").get<std::string>();
  const auto step = time.at("last_step").get<int64_t>();
  if (state == "running") text += fmt::format(" It is running, at step {}.", step);
  if (state == "killed") text += fmt::format(" It was killed behind step {}.", step);
  return text;
}

// "runs-7, nvfp4 (emulated),"; a run that is called like its recipe says so once.
std::string run_and_recipe(const Json& run) {
  const auto name = run.at("name").get<std::string>();
  const std::string recipe = recipe_text(run);
  // get: newer compilers find no comparison of a string with a value.
  const bool same = name == run.at("header").at("recipe").at("name").get<std::string>();
  return same ? recipe : name + ", " + recipe + ",";
}

std::string comparison_text(const Json& run) {
  const Json& compare = run.at("compare");
  std::string text = run_and_recipe(run);
  if (compare.at("step_time_ratio").is_number()) {
    text += fmt::format(
        " takes {:.3f} times the step time of {}{}", compare.at("step_time_ratio").get<double>(),
        compare.at("first").get<std::string>(),
        compare.at("emulated").get<bool>() ? " (emulated: no verdict on speed)" : "");
  } else {
    text += " has no step time to compare";
  }
  const Json& loss = compare.at("loss");
  if (loss.at("available").get<bool>()) {
    text += fmt::format("; validation loss {:+.4f} nats at {} tokens", loss.at("gap").get<double>(),
                        count_text(loss.at("tokens").get<int64_t>()));
  }
  return text + ".";
}

Json run_json(const Run& run, const std::string& name) {
  const StepChoice choice = choose_steps(run);
  Json json = {{"name", name}, {"verdict", nullptr}};
  if (run.peer) {
    json.update(peer_sections(run, choice));
    json["verdict"] = verdict_of(json);
    return json;
  }
  json["header"] = header_section(run);
  json["step_time"] = step_time_section(run, choice);
  json["breakdown"] = breakdown_section(run, choice);
  json["comm"] = comm_section(run, choice);
  json["precision"] = precision_section(run, choice);
  json["throughput"] = throughput_section(run, choice);
  json["ranks"] = ranks_section(run, choice);
  json["memory"] = memory_section(run);
  json["power"] = missing("no device counters on a CPU");
  json["goodput"] = goodput_section(run, choice);
  json["loss"] = loss_section(run);
  json["observer"] = observer_section(run, choice);
  json["verdict"] = verdict_of(json);
  return json;
}

}  // namespace

Json report_json(std::span<const Run> runs, const Json& comparisons) {
  const std::vector<std::string> names = names_of(runs);
  Json json = {{"schema", kReportSchema},
               {"verdict", ""},
               {"comparisons", comparisons},
               {"runs", Json::array()}};
  for (size_t i = 0; i < runs.size(); ++i) json["runs"].push_back(run_json(runs[i], names[i]));
  Json& all = json["runs"];
  std::vector<std::string> verdicts;
  for (const Json& comparison : comparisons) verdicts.push_back(comparison_verdict(comparison));
  for (size_t i = 0; i < all.size(); ++i) {
    if (i == 0) {
      all[0]["compare"] = missing(all.size() > 1 ? "the first run: the others are held against it"
                                                 : "one run; name several, or use qstep compare");
      if (all.size() == 1) verdicts.push_back(all[0].at("verdict").get<std::string>());
    } else {
      all[i]["compare"] = compare_section(all[0], all[i]);
      verdicts.push_back(comparison_text(all[i]));
    }
  }
  json["verdict"] = fmt::format("{}", fmt::join(verdicts, " "));
  return json;
}

Json report_of_folders(const std::vector<std::string>& folders,
                       const std::vector<std::string>& logs) {
  std::vector<Run> runs;
  Json comparisons = Json::array();
  for (const std::string& folder : folders) {
    if (!is_comparison(folder)) {
      runs.push_back(read_run(folder));
      continue;
    }
    comparisons.push_back(read_comparison(folder));
    for (const std::string& run : runs_of_comparison(folder)) runs.push_back(read_run(run));
  }
  for (const std::string& log : logs) runs.push_back(read_peer_log(log));
  for (const Run& run : runs) {
    for (const std::string& problem : run.problems) fmt::print(stderr, "warning: {}\n", problem);
  }
  return report_json(runs, comparisons);
}

}  // namespace qstep::trainer::report
