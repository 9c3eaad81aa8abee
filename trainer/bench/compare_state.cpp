#include "trainer/bench/compare_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ops/error.h"
#include "trainer/base/durable_files.h"
#include "trainer/bench/prediction.h"
#include "trainer/config/config_diff.h"

namespace qstep::trainer {

using Json = nlohmann::ordered_json;

ComparePair& CompareState::pair(size_t recipe, bool observer) {
  for (ComparePair& p : pairs) {
    if (p.recipe == recipe && p.observer == observer) return p;
  }
  pairs.push_back({.recipe = recipe, .observer = observer, .segments_ms = {}, .parts = {}});
  return pairs.back();
}

const CompareLoss* CompareState::loss(size_t recipe, uint64_t seed) const {
  for (const CompareLoss& l : losses) {
    if (l.recipe == recipe && l.seed == seed) return &l;
  }
  return nullptr;
}

double side_ms(const ComparePair& pair, Side side) {
  std::vector<double> values;
  for (size_t s = 0; s < pair.segments_ms.size(); ++s) {
    if (side_of(static_cast<int64_t>(s)) == side) values.push_back(pair.segments_ms[s]);
  }
  return values.empty() ? 0 : quantile(values, 0.5);
}

bool pair_emulated(const CompareState& state, const ComparePair& pair) {
  return state.setting.emulated[0] || state.setting.emulated[pair.recipe];
}

LossGap loss_gap(const CompareState& state, size_t recipe) {
  LossGap result;
  std::vector<double> losses, gaps;
  for (const CompareLoss& own : state.losses) {
    if (own.recipe != recipe) continue;
    if (!own.loss) {
      ++result.not_finite;
      continue;
    }
    losses.push_back(*own.loss);
    const CompareLoss* baseline = state.loss(0, own.seed);
    if (baseline != nullptr && baseline->loss) gaps.push_back(*own.loss - *baseline->loss);
  }
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  result.seeds = static_cast<int64_t>(gaps.size());
  result.loss = losses.empty() ? kNone : mean(losses);
  result.gap = gaps.empty() ? kNone : mean(gaps);
  result.standard_error = gaps.size() < 2 ? kNone : standard_error(gaps);
  return result;
}

std::string setting_difference(const CompareSetting& before, const CompareSetting& after) {
  std::string lines;
  const auto compare = [&](std::string_view what, const auto& old_value, const auto& new_value) {
    if (old_value != new_value)
      lines += fmt::format("  {}: {} -> {}\n", what, old_value, new_value);
  };
  compare("recipes", fmt::format("{}", fmt::join(before.recipes, ",")),
          fmt::format("{}", fmt::join(after.recipes, ",")));
  compare("warm-up steps of a segment", before.warmup, after.warmup);
  compare("counted steps of a segment", before.steps, after.steps);
  compare("threads", before.threads, after.threads);
  compare("processor", before.cpu, after.cpu);
  lines += changed_settings(before.config_toml, after.config_toml);
  if (lines.empty() && before.hashes != after.hashes) lines = "  what a recipe computes\n";
  return lines;
}

// ---- the file --------------------------------------------------------------------------------

namespace {

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json parts_json(const MeanParts& parts) {
  Json sites = Json::array();
  for (const auto& [site, ms] : parts.mean.sites) {
    Json row = {{"layer", site.layer}, {"op", site.op}, {"pass", site.pass}, {"ms", ms}};
    if (!site.is_quant()) {
      row.update({{"m", site.m},
                  {"n", site.n},
                  {"k", site.k},
                  {"format_a", site.format_a},
                  {"format_b", site.format_b}});
    }
    sites.push_back(std::move(row));
  }
  return {{"segments", parts.segments},
          {"breakdown_ms", parts.mean.categories},
          {"sites", std::move(sites)}};
}

MeanParts read_parts(const Json& json) {
  MeanParts parts{.segments = json.at("segments"), .mean = {}};
  parts.mean.categories = json.at("breakdown_ms").get<std::map<std::string, double>>();
  for (const Json& row : json.at("sites")) {
    SitePart site{.layer = row.at("layer"),
                  .op = row.at("op"),
                  .pass = row.at("pass"),
                  .m = row.value("m", int64_t{0}),
                  .n = row.value("n", int64_t{0}),
                  .k = row.value("k", int64_t{0}),
                  .format_a = row.value("format_a", std::string()),
                  .format_b = row.value("format_b", std::string())};
    parts.mean.sites[std::move(site)] = row.at("ms");
  }
  return parts;
}

Json pair_json(const CompareState& state, const ComparePair& pair, const AbbaOptions& options) {
  const bool noise_floor = pair.recipe == 0 && !pair.observer,
             emulated = pair_emulated(state, pair);
  Json json = {{"a", state.setting.recipes[0]},  {"b", state.setting.recipes[pair.recipe]},
               {"b_index", pair.recipe},         {"noise_floor", noise_floor},
               {"observer", pair.observer},      {"emulated", emulated},
               {"segments_ms", pair.segments_ms}};
  const std::vector<double> logs = pair_logs(pair.segments_ms);
  const std::vector<double> blocks = block_logs(logs);
  json["blocks"] = blocks.size();
  if (blocks.empty()) return json;
  Json gains = Json::array();
  for (const double log : blocks) gains.push_back(std::exp(log));
  const AbbaResult result = judge(logs, options);
  json["a_ms"] = side_ms(pair, Side::kA);
  json["b_ms"] = side_ms(pair, Side::kB);
  json["block_gains"] = gains;
  json["gain"] = result.gain;
  json["gain_interval"] = {result.interval.low, result.interval.high};
  json["deviation"] = result.deviation;
  json["verdict"] = emulated ? "emulated" : verdict_name(result.verdict);
  json["blocks_needed"] = result.blocks_needed;
  const std::optional<Prediction> prediction = predict(pair, result.gain);
  if (!prediction) return json;
  json["prediction"] = to_json(*prediction);
  json["a_parts"] = parts_json(pair.parts_of(Side::kA));
  json["b_parts"] = parts_json(pair.parts_of(Side::kB));
  return json;
}

Json gap_json(const CompareState& state, size_t recipe) {
  const LossGap gap = loss_gap(state, recipe);
  return {{"recipe", state.setting.recipes[recipe]},
          {"emulated", bool{state.setting.emulated[recipe]}},
          {"loss", number(gap.loss)},
          {"gap", number(gap.gap)},
          {"standard_error", number(gap.standard_error)},
          {"seeds", gap.seeds},
          {"not_finite", gap.not_finite}};
}

}  // namespace

Json to_json(const CompareState& state, const AbbaOptions& options, bool finished) {
  const CompareSetting& s = state.setting;
  Json json = {{"type", "compare"}, {"schema", kCompareSchema}, {"finished", finished}};
  Json recipes = Json::array();
  for (size_t i = 0; i < s.recipes.size(); ++i) {
    Json row = {{"recipe", s.recipes[i]}, {"emulated", bool{s.emulated[i]}}};
    row["config_hash"] = s.hashes[i];
    recipes.push_back(row);
  }
  json["recipes"] = recipes;
  json["data"] = s.data.empty() ? "synthetic" : s.data;
  json["n_parameters"] = s.n_parameters;
  json["tokens_per_step"] = s.tokens_per_step;
  json["warmup"] = s.warmup;
  json["steps"] = s.steps;
  json["threads"] = s.threads;
  json["cpu"] = s.cpu;
  json["threshold"] = options.threshold;
  json["bootstrap"] = {{"level", options.bootstrap.level},
                       {"resamples", options.bootstrap.resamples},
                       {"seed", options.bootstrap.seed}};
  json["pairs"] = Json::array();
  for (const ComparePair& pair : state.pairs) {
    json["pairs"].push_back(pair_json(state, pair, options));
  }
  json["losses"] = Json::array();
  for (const CompareLoss& l : state.losses) {
    json["losses"].push_back({{"recipe", s.recipes[l.recipe]},
                              {"recipe_index", l.recipe},
                              {"seed", l.seed},
                              {"loss", l.loss ? Json(*l.loss) : Json(nullptr)}});
  }
  json["loss_gaps"] = Json::array();
  for (size_t i = 0; !state.losses.empty() && i < s.recipes.size(); ++i) {
    json["loss_gaps"].push_back(gap_json(state, i));
  }
  json["notes"] = state.notes;
  json["config_toml"] = s.config_toml;
  return json;
}

CompareState read_compare_state(const std::string& path) {
  const auto fail = [&](std::string_view why) -> ops::Error {
    return {ops::ExitCode::kConfig,
            fmt::format("{}: {}; choose another folder with -o", path, why)};
  };
  try {
    const Json json = Json::parse(read_file(path));
    if (json.at("type") != "compare" || json.at("schema") != kCompareSchema) {
      throw fail("not a comparison of this version of qstep");
    }
    CompareState state;
    for (const Json& row : json.at("recipes")) {
      state.setting.recipes.push_back(row.at("recipe"));
      state.setting.hashes.push_back(row.at("config_hash"));
      state.setting.emulated.push_back(row.at("emulated"));
    }
    state.setting.config_toml = json.at("config_toml");
    state.setting.data = json.at("data") == "synthetic" ? "" : json.at("data");
    state.setting.n_parameters = json.at("n_parameters");
    state.setting.tokens_per_step = json.at("tokens_per_step");
    state.setting.warmup = json.at("warmup");
    state.setting.steps = json.at("steps");
    state.setting.threads = json.at("threads");
    state.setting.cpu = json.at("cpu");
    const size_t n_recipes = state.setting.recipes.size();
    const auto recipe = [&](const Json& index) {
      const auto i = index.get<size_t>();
      if (i >= n_recipes) throw fail("a recipe that it does not list");
      return i;
    };
    for (const Json& row : json.at("pairs")) {
      ComparePair pair{.recipe = recipe(row.at("b_index")),
                       .observer = row.value("observer", false),
                       .segments_ms = row.at("segments_ms").get<std::vector<double>>(),
                       .parts = {}};
      const auto whole = pair.segments_ms.size() / kSegmentsPerBlock * kSegmentsPerBlock;
      pair.segments_ms.resize(whole);
      if (row.contains("prediction")) {
        pair.parts = {read_parts(row.at("a_parts")), read_parts(row.at("b_parts"))};
      }
      state.pairs.push_back(std::move(pair));
    }
    for (const Json& row : json.at("losses")) {
      const Json& loss = row.at("loss");
      state.losses.push_back(
          {.recipe = recipe(row.at("recipe_index")),
           .seed = row.at("seed"),
           .loss = loss.is_null() ? std::nullopt : std::optional(loss.get<double>())});
    }
    return state;
  } catch (const nlohmann::json::exception& error) {
    throw fail(fmt::format("not a comparison ({})", error.what()));
  } catch (const std::system_error& error) {
    throw fail(error.what());
  }
}

}  // namespace qstep::trainer
