#include "trainer/config/config_diff.h"

#include <algorithm>
#include <sstream>
#include <vector>

#include "trainer/config/recipe_file.h"

namespace qstep::trainer {

namespace {

using Settings = std::vector<std::string>;  // "section.key = value"

Settings settings_of(const std::string& toml) {
  Settings settings;
  std::string section;
  std::istringstream in(toml);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('[')) {
      const size_t begin = line.find_first_not_of('[');
      section = line.substr(begin, line.find(']') - begin);
    } else if (!line.starts_with('#') && line.find('=') != std::string::npos) {
      settings.push_back((section.empty() ? "" : section + ".") + line);
    }
  }
  return settings;
}

// Those of `all` that `other` lacks and `counts` accepts, each behind the sign.
template <class F>
std::string only_in(const Settings& all, const Settings& other, const char* sign, F&& counts) {
  std::string lines;
  for (const std::string& setting : all) {
    const bool shared = std::find(other.begin(), other.end(), setting) != other.end();
    if (!shared && counts(setting)) lines += sign + setting + "\n";
  }
  return lines;
}

template <class F>
std::string changes(const std::string& before, const std::string& after, F&& counts) {
  const Settings old_settings = settings_of(before), new_settings = settings_of(after);
  return only_in(old_settings, new_settings, "  - ", counts) +
         only_in(new_settings, old_settings, "  + ", counts);
}

}  // namespace

std::string changed_settings(const std::string& before, const std::string& after) {
  return changes(before, after, [](const std::string& s) {
    return !s.starts_with("run.") && !s.starts_with("timing.");
  });
}

std::string changed_recipe(const Config& before, const Config& after) {
  const std::string old_text = numerics_toml(before.precision.loaded);
  const std::string new_text = numerics_toml(after.precision.loaded);
  if (old_text == new_text) return {};
  const std::string lines = changes(old_text, new_text, [](const std::string&) { return true; });
  return lines.empty() ? "  (the same lines in another order)\n" : lines;
}

std::string changed_model(const Config& before, const Config& after) {
  const bool rope = after.model.position == PositionKind::kRope;
  return changes(to_toml(before), to_toml(after), [&](const std::string& s) {
    return s.starts_with("model.") && !s.starts_with("model.preset") &&
           !(rope && s.starts_with("model.max_seq_len"));
  });
}

}  // namespace qstep::trainer
