// Configurations as text: TOML that reads back to the same values, and the hash of it.
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "trainer/config/config_options.h"
#include "trainer/config/recipe_file.h"

namespace qstep::trainer {

namespace {

struct Line {
  std::string name;  // "train.steps"
  std::string value;
};

std::vector<Line> lines_of(const Config& config) {
  std::vector<Line> lines;
  for_each_option(config,
                  [&](std::string_view name, const auto& field, std::string_view, const Limits&) {
                    lines.push_back({std::string(name), toml_value(field)});
                  });
  return lines;
}

// comment(name) goes behind the value, in one column, unless it is empty.
template <class Keep, class Comment>
std::string print(const Config& config, Keep&& keep, Comment&& comment) {
  const std::vector<Line> lines = lines_of(config);
  size_t key_width = 0, value_width = 0;
  for (const Line& line : lines) {
    key_width = std::max(key_width, key_of(line.name).size());
    value_width = std::max(value_width, line.value.size());
  }
  std::string text;
  std::string_view section;
  for (const Line& line : lines) {
    if (!keep(section_of(line.name))) continue;
    if (section_of(line.name) != section) {
      section = section_of(line.name);
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    }
    const std::string note = comment(line.name);
    if (note.empty()) {
      text += fmt::format("{} = {}\n", key_of(line.name), line.value);
    } else {
      text += fmt::format("{:<{}} = {:<{}}  # {}\n", key_of(line.name), key_width, line.value,
                          value_width, note);
    }
  }
  return text;
}

constexpr auto kNoComment = [](const std::string&) { return std::string(); };

}  // namespace

std::string toml_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      quoted += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string toml_value(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);  // the shortest that reads back
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string to_toml(const Config& config) {
  return print(
      config, [](std::string_view) { return true; }, kNoComment);
}

std::string to_toml(const LoadedConfig& loaded) {
  return print(
      loaded.config, [](std::string_view) { return true; },
      [&](const std::string& name) {
        const auto origin = loaded.origins.find(name);
        return origin == loaded.origins.end() ? "default" : origin->second;
      });
}

std::string config_hash(const Config& config) {
  const std::string text =
      print(
          config, [](std::string_view section) { return section != "run" && section != "timing"; },
          kNoComment) +
      numerics_toml(config.precision.loaded);
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace qstep::trainer
