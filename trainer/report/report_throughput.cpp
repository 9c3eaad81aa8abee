// Throughput of a run and its utilisation of the machine: the figures of utilisation.h.
#include <cmath>

#include "trainer/plan/utilisation.h"
#include "trainer/report/report_peaks.h"
#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

namespace {

Json share_json(double value, const char* formula, const Json& peaks) {
  if (!peaks.at("available").get<bool>()) return peaks;
  if (!std::isfinite(value)) return missing("no peak rate is recorded of what it divides by");
  return {{"available", true}, {"value", value}, {"formula", formula}};
}

// F / (t P_x) of every format but BF16 that runs: only for comparison with those who divide by it.
Json by_format(const LeastTime& least, const MachineModel& machine, double step_s) {
  Json rows = Json::array();
  for (size_t x = 0; x < least.flops.size(); ++x) {
    const double peak = machine.products[x].peak;
    if (x == static_cast<size_t>(ProductFormat::kBf16) || least.flops[x] == 0 || peak == 0)
      continue;
    rows.push_back(
        {{"format", kProductFormatNames[x]}, {"value", least.causal_flops / (step_s * peak)}});
  }
  return rows;
}

// What the products of the recipe allow at most: here, and on GPUs that have all of its formats.
Json largest_gain(const StepWork& work, const LeastTime& here) {
  Json json = {{"available", true},
               {"formula", "SOL time of the model in BF16 over that in the recipe's formats"},
               {"here", number(here.largest_gain())},
               {"elsewhere", Json::array()}};
  for (const std::string_view name : {"h200", "b200", "gb300"}) {
    const MachineModel& machine = machine_model(name);
    bool emulated = !machine.has(work.compute);
    for (const ProductWork& p : work.products) {
      emulated = emulated || runs_as(machine, p.left, p.right, work.compute).emulated;
    }
    if (emulated) continue;
    json["elsewhere"].push_back({{"machine", name},
                                 {"title", machine.title},
                                 {"value", least_time(work, machine).largest_gain()}});
  }
  return json;
}

// Needs the configuration: what ran is counted from it.
Json utilisation_json(const Run& run, double step_s) {
  const int ranks = static_cast<int>(run.last_start().ranks);
  const Json peaks = peaks_json(run);
  const MachineModel machine = recorded_machine(run);
  const StepWork work = step_work(*run.config, ranks);
  const LeastTime least = least_time(work, machine);
  const Utilisation used = utilisation(least, step_s);
  const double tokens = work.step_tokens / ranks;  // of a rank
  Json mfu = share_json(used.mfu_bf16, "F / (t P_bf16), F causal", peaks);
  if (mfu.at("available").get<bool>()) {
    mfu["full"] = used.mfu_bf16_full;
    mfu["by_format"] = by_format(least, machine, step_s);
  }
  return {
      {"flops_per_token_full", least.full_flops / tokens},
      {"flops_per_s_full", used.full_flops_per_s * ranks},
      {"flops_per_s_causal_per_rank", used.causal_flops_per_s},
      {"flops_per_s_full_per_rank", used.full_flops_per_s},
      {"peak", peaks},
      {"mfu", mfu},
      {"hfu",
       share_json(used.hfu,
                  "(F + the scores that attention's backward computes again) / (t P_bf16)", peaks)},
      {"sol", share_json(used.sol, "(sum over formats x of F_x / P_x) / t, F causal", peaks)},
      {"sol_mem",
       share_json(used.sol_mem,
                  "(sum over operations of max(F / P, bytes / memory rate)) / t; above 100 % where "
                  "caches hold what operations hand on",
                  peaks)},
      {"largest_gain", largest_gain(work, least)}};
}

}  // namespace

Json throughput_section(const Run& run, const StepChoice& choice) {
  const std::vector<double> times = step_times(run, steps_to_use(run, choice));
  if (times.empty()) return missing("no step was finished");
  const Start start = run.last_start();
  const double step_ms = median(times);
  const double tokens = static_cast<double>(run.steps.back().tokens);
  const double per_s = tokens / (step_ms * 1e-3);
  const double causal = start.flops_per_token_causal;
  Json json = {{"available", true},
               {"at", "the median step"},
               {"step_ms", step_ms},
               {"tokens_per_step", tokens},
               {"tokens_per_s", number(per_s)},
               {"tokens_per_s_per_rank", number(per_s / static_cast<double>(start.ranks))},
               {"ranks", start.ranks},
               {"formula",
                "F per token: 6 per weight of the linear layers and the head, without padding, and "
                "attention, "
                "6 L H D (T + 1) causal or 12 L H D T full"},
               {"flops_per_token_causal", number(causal)},
               {"flops_per_s_causal", number(per_s * causal)}};
  if (run.config) {
    json.update(utilisation_json(run, step_ms * 1e-3));
    return json;
  }
  const Json reason = missing("config.toml is missing or cannot be read");
  for (const char* key : {"peak", "mfu", "hfu", "sol", "sol_mem", "largest_gain"}) {
    json[key] = reason;
  }
  return json;
}

}  // namespace qstep::trainer::report
