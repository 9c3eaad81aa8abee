// What a run was, and how it ended.
#include <fmt/chrono.h>

#include "trainer/backend/emulation.h"
#include "trainer/config/recipe_check.h"
#include "trainer/config/recipe_groups.h"
#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

namespace {

std::string ending_text(const Run& run) {
  switch (run.ending) {
    case Ending::kRunning:
      return "running: a process holds the folder";
    case Ending::kKilled:
      return "killed: there is no exit_reason.json, and no process holds the folder";
    case Ending::kRecorded:
      break;
  }
  return run.exit_reason.value("name", "unknown");
}

Json ending_json(const Run& run) {
  const char* const state = run.ending == Ending::kRunning  ? "running"
                            : run.ending == Ending::kKilled ? "killed"
                                                            : "ended";
  Json json = {{"state", state},
               {"text", ending_text(run)},
               {"recorded", run.ending == Ending::kRecorded},
               {"torn_files", run.torn}};
  for (const char* key : {"code", "step", "time", "what", "last_checkpoint", "restart_count"}) {
    const bool there = run.exit_reason.is_object() && run.exit_reason.contains(key);
    json[key] = there ? run.exit_reason[key] : Json(nullptr);
  }
  return json;
}

// What runs in which layers: consecutive phases of the recipe, groups of layers with equal
// operands.
Json recipe_json(const Run& run) {
  const Start start = run.last_start();
  Json json = {{"name", start.recipe},
               {"emulated", start.emulated},
               {"runs", emulation_text(start.emulated)}};
  if (!run.config) {
    json["layers"] = missing("config.toml is missing or cannot be read");
    return json;
  }
  Json phases = Json::array();
  const std::string_view compute = name(run.config->precision.loaded.compute);
  for (const PhaseGroups& phase : groups_of(*run.config)) {
    Json groups = Json::array();
    for (const LayerGroup& group : phase.groups) {
      Json operands;
      for (size_t slot = 0; slot < precision::kOperandSlots; ++slot) {
        const precision::QuantSpec& spec = group.table.specs[slot];
        operands[std::string(precision::kOperandSlotNames[slot])] =
            spec.quantized() ? describe(spec) : std::string(compute);
      }
      groups.push_back({{"layers", module_names(group.modules)},
                        {"operands", operands},
                        {"runs", emulation_text(start.emulated && group.table.quantized())}});
    }
    phases.push_back(
        {{"first_step", phase.first_step}, {"last_step", phase.last_step}, {"groups", groups}});
  }
  json["layers"] = {{"available", true}, {"phases", phases}};
  return json;
}

Json model_json(const Run& run) {
  if (!run.config) return missing("config.toml is missing or cannot be read");
  const ModelConfig& m = run.config->model;
  const TrainConfig& t = run.config->train;
  return {{"available", true},
          {"preset", m.preset},
          {"n_parameters", n_parameters(m)},
          {"n_layers", m.n_layers},
          {"width", m.width},
          {"n_heads", m.n_heads},
          {"n_kv_heads", m.n_kv_heads},
          {"ffn_width", m.ffn_width},
          {"vocab_size", m.vocab_size},
          {"seq_len", t.seq_len},
          {"global_batch", t.global_batch},
          {"micro_batch", t.micro_batch},
          {"steps", t.steps},
          {"seed", t.seed}};
}

Json data_json(const Run& run) {
  if (!run.checkpoint.is_object()) {
    return missing("no checkpoint is there to say which corpus it was");
  }
  Json json = {{"available", true}};
  for (const char* key : {"data_content_hash", "tokenizer", "tokenizer_sha256"}) {
    json[key] = run.checkpoint.value(key, Json(nullptr));
  }
  return json;
}

// A group of facts; environment may be empty.
Json facts_json(const Run& run, const FactTexts& facts, const char* what) {
  if (!run.facts.recorded) {
    return missing(fmt::format("the run is of an older qstep, which did not record {}", what));
  }
  Json json = {{"available", true}, {"facts", Json::array()}};
  for (const auto& [name, value] : facts)
    json["facts"].push_back({{"name", name}, {"value", value}});
  return json;
}

// Whether the configuration and recipe in the folder are those that ran.
Json hash_check(const Run& run) {
  const std::string recorded = run.last_start().config_hash;
  if (!run.config || recorded.empty())
    return missing("config.toml or the recorded hash is missing");
  const std::string found = config_hash(*run.config);
  return {{"available", true}, {"found", found}, {"equal", found == recorded}};
}

}  // namespace

Json header_section(const Run& run) {
  const Start start = run.last_start();
  Json hosts = Json::array();
  for (const RankStart& rank : run.rank_starts) {
    if (std::find(hosts.begin(), hosts.end(), Json(rank.host)) == hosts.end())
      hosts.push_back(rank.host);
  }
  Json starts = Json::array();
  for (const Start& s : run.starts) {
    starts.push_back({{"first_step", s.step},
                      {"time", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                                           fmt::gmtime(static_cast<std::time_t>(s.time_unix_s)))},
                      {"ranks", s.ranks},
                      {"tensor", s.tensor},
                      {"recipe", s.recipe},
                      {"config_hash", s.config_hash}});
  }
  return {{"available", true},
          {"path", run.path},
          {"config_hash", start.config_hash},
          {"recipe", recipe_json(run)},
          {"ranks", start.ranks},
          {"tensor", start.tensor},
          {"model", model_json(run)},
          {"data", data_json(run)},
          {"hosts", hosts},
          {"starts", starts},
          {"ending", ending_json(run)},
          {"checkpoints", run.checkpoints},
          {"problems", run.problems},
          {"config_check", hash_check(run)},
          {"build", facts_json(run, run.facts.build, "the program's revision and flags")},
          {"machine", facts_json(run, run.facts.machine, "its machine")},
          {"libraries", facts_json(run, run.facts.libraries, "versions of libraries")},
          {"environment", facts_json(run, run.facts.environment, "environment variables")},
          {"config_toml", run.config_toml},
          {"recipe_toml", run.recipe_toml}};
}

}  // namespace qstep::trainer::report
