// The items of a report about a run that another trainer logged.
#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

namespace {

constexpr const char* kNotThere = "not in this log";

Json header_of(const Run& run) {
  const PeerLog& peer = *run.peer;
  Json json = {{"available", true},
               {"path", run.path},
               {"peer", peer.tool},
               {"times", peer.times},
               {"config_hash", nullptr},
               {"recipe",
                {{"name", peer.tool},
                 {"emulated", false},
                 {"runs", kNotThere},
                 {"layers", missing(kNotThere)}}},
               {"ranks", nullptr},
               {"tensor", nullptr},
               {"hosts", Json::array()},
               {"starts", Json::array()},
               {"ending",
                {{"state", "logged"},
                 {"text", "a log of " + peer.tool},
                 {"recorded", true},
                 {"torn_files", Json::array()},
                 {"code", nullptr}}},
               {"checkpoints", Json::array()},
               {"problems", run.problems},
               {"config_toml", ""},
               {"recipe_toml", ""}};
  for (const char* key :
       {"model", "data", "config_check", "build", "machine", "libraries", "environment"}) {
    json[key] = missing(kNotThere);
  }
  return json;
}

std::vector<double> values_of(const Run& run, const StepChoice& choice, double Step::*value) {
  std::vector<double> values;
  for (const size_t i : choice.measured) {
    if (!std::isnan(run.steps[i].*value)) values.push_back(run.steps[i].*value);
  }
  return values;
}

// Medians of what the lines say: nothing is worked out from what this program does not know.
Json throughput_of(const Run& run, const StepChoice& choice) {
  Json json = {{"available", true},
               {"at", "medians of the log's lines"},
               {"formula", "that of the log's tool"},
               {"tokens_per_s", number(median(values_of(run, choice, &Step::tokens_per_s)))},
               {"tokens_per_s_per_rank",
                number(median(values_of(run, choice, &Step::tokens_per_s_per_device)))},
               {"model_flops_per_s_per_device",
                number(median(values_of(run, choice, &Step::model_flops_per_s_per_device)))}};
  for (const char* key : {"peak", "mfu", "hfu", "sol", "sol_mem", "largest_gain"}) {
    json[key] = missing(kNotThere);
  }
  return json;
}

}  // namespace

Json peer_sections(const Run& run, const StepChoice& choice) {
  const bool times = !values_of(run, choice, &Step::step_ms).empty();
  Json json;
  json["header"] = header_of(run);
  json["step_time"] = times ? step_time_section(run, choice) : missing(kNotThere);
  if (times) json["step_time"]["of"] = "times of the log: " + run.peer->times;
  json["throughput"] = throughput_of(run, choice);
  json["loss"] = loss_section(run);
  json["loss"]["validation"] = missing(kNotThere);
  for (const char* key :
       {"breakdown", "comm", "precision", "ranks", "memory", "power", "goodput", "observer"}) {
    json[key] = missing(kNotThere);
  }
  return json;
}

}  // namespace qstep::trainer::report
