#include "trainer/report/report_comparison.h"

#include <fmt/format.h>

#include <filesystem>

#include "trainer/base/durable_files.h"
#include "trainer/bench/compare_state.h"

namespace qstep::trainer::report {

namespace fs = std::filesystem;

namespace {

std::string json_of(const std::string& folder) { return folder + "/compare.json"; }

}  // namespace

bool is_comparison(const std::string& folder) { return fs::is_regular_file(json_of(folder)); }

Json read_comparison(const std::string& folder) {
  read_compare_state(json_of(folder));  // says what is wrong with the file
  Json json = Json::parse(read_file(json_of(folder)));
  for (Json& pair : json.at("pairs")) {
    for (const char* key : {"segments_ms", "block_gains", "a_parts", "b_parts"}) pair.erase(key);
    if (!pair.contains("prediction")) {
      pair["prediction"] = missing("it needs timing.level = ops on both sides");
    } else {
      pair["prediction"]["available"] = true;
    }
  }
  for (const char* key : {"type", "schema", "config_toml"}) json.erase(key);
  Json with_path = {{"path", folder}};
  with_path.update(json);
  return with_path;
}

// Their names end with "-s<seed>", ahead of which stands the recipe's number (compare_loss.h).
std::vector<std::string> runs_of_comparison(const std::string& folder) {
  std::map<std::string, std::pair<int64_t, std::string>> first;  // by recipe: seed, path
  if (!fs::is_directory(folder + "/runs")) return {};
  for (const auto& entry : fs::directory_iterator(folder + "/runs")) {
    const std::string name = entry.path().filename();
    const size_t at = name.rfind("-s");
    if (at == std::string::npos || !fs::exists(entry.path() / "metrics.jsonl")) continue;
    const int64_t seed = std::strtoll(name.c_str() + at + 2, nullptr, 10);
    const auto [found, is_new] = first.try_emplace(name.substr(0, at), seed, entry.path().string());
    if (!is_new && seed < found->second.first) found->second = {seed, entry.path().string()};
  }
  std::vector<std::string> paths;
  for (const auto& [recipe, run] : first) paths.push_back(run.second);
  return paths;
}

std::string comparison_verdict(const Json& comparison) {
  std::vector<std::string> recipes, timing;
  for (const Json& pair : comparison.at("pairs")) {
    if (!pair.contains("gain") || pair.at("noise_floor").get<bool>()) continue;
    const double gain = pair.at("gain");
    const double low = pair.at("gain_interval")[0], high = pair.at("gain_interval")[1];
    if (pair.at("observer").get<bool>()) {
      timing.push_back(fmt::format("Timing costs {:+.2f} % of a step ({:+.2f} to {:+.2f}).",
                                   100 * (1 / gain - 1), 100 * (1 / high - 1),
                                   100 * (1 / low - 1)));
      continue;
    }
    const bool emulated = pair.at("emulated").get<bool>();
    recipes.push_back(fmt::format(
        "{}{}: {:.3f} times as fast as {} ({:.3f} to {:.3f}), {}.", pair.at("b").get<std::string>(),
        emulated ? " (emulated)" : "", gain, pair.at("a").get<std::string>(), low, high,
        emulated ? "no verdict on speed" : pair.at("verdict").get<std::string>()));
  }
  recipes.insert(recipes.end(), timing.begin(), timing.end());
  return fmt::format("{}", fmt::join(recipes, " "));
}

}  // namespace qstep::trainer::report
