// From TOML and overrides to a checked Config. Problems are collected, never thrown one by one.
#include "trainer/config/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>

#include "trainer/config/config_value.h"
#include "trainer/config/recipe_check.h"
#include "trainer/config/recipe_file.h"
#include "trainer/config/toml_node.h"

namespace qstep::trainer {

namespace {

constexpr int64_t kAfterTheFile = std::numeric_limits<int64_t>::max();

// A value of every option that works, by name, as TOML.
const std::map<std::string, std::string>& examples() {
  static const std::map<std::string, std::string> map = [] {
    Config config;
    config.model = preset_model(kDefaultPreset);
    config.data.train = "corpus.h5";
    std::map<std::string, std::string> values;
    for_each_option(config, [&](std::string_view name, const auto& field, std::string_view,
                                const Limits&) { values[std::string(name)] = toml_value(field); });
    return values;
  }();
  return map;
}

std::set<std::string> sections() {
  std::set<std::string> names;
  for (const auto& [option, example] : examples()) names.emplace(section_of(option));
  return names;
}

// The option meant by an unknown one: the same key in another section, one key beginning with the
// other, or the fewest edits.
std::string nearest_option(const std::string& typed) {
  std::vector<std::string> names, same_key, same_beginning;
  const std::string_view key = key_of(typed);
  for (const auto& [name, example] : examples()) {
    names.push_back(name);
    const std::string_view other = key_of(name);
    if (other == key) same_key.push_back(name);
    if (!key.empty() && (other.starts_with(key) || key.starts_with(other))) {
      same_beginning.push_back(name);
    }
  }
  if (!same_key.empty()) return nearest(typed, same_key);
  return nearest(typed, same_beginning.empty() ? names : same_beginning);
}

class Reader {
 public:
  void read_toml(const std::string& text, const std::string& origin) {
    toml::table root;
    try {
      root = toml::parse(text, origin);
    } catch (const toml::parse_error& error) {
      const int64_t line = error.source().begin.line;
      add_problem(line, fmt::format("{}:{}", origin, line),
                  fmt::format("not TOML: {}", error.description()));
      unreadable_ = true;
      return;
    }
    const auto assignment = [&](const toml::node& node) {
      const int64_t line = node.source().begin.line;
      return Assignment{fmt::format("{}:{}", origin, line), line, to_value(node)};
    };
    for (const auto& [section_key, section] : root) {
      const std::string section_name(section_key.str());
      const Assignment whole = assignment(section);
      if (!sections().contains(section_name)) {
        add_unknown_section(whole, section_name, section.is_table());
      } else if (!section.is_table()) {
        add_problem(whole.order, whole.origin,
                    fmt::format("{} is a section, found {}: write {}", section_name,
                                describe(whole.value), example_in(section_name)));
      } else {
        for (const auto& [key, node] : *section.as_table()) {
          assign(fmt::format("{}.{}", section_name, key.str()), assignment(node));
        }
      }
    }
  }

  void read_override(const std::string& text) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      add_problem(
          kAfterTheFile, "command line",
          fmt::format("\"{}\" is not section.key=value: write for instance train.steps=1000",
                      text));
      return;
    }
    const std::string bare = text.substr(equals + 1);
    Value value = bare;  // a bare word, unless it is one TOML value
    try {
      const toml::table table = toml::parse("value = " + bare);
      if (table.size() == 1) value = to_value(*table.get("value"));
    } catch (const toml::parse_error&) {
    }
    assign(text.substr(0, equals), {"command line", kAfterTheFile, value, bare});
  }

  LoadedConfig finish(const std::string& recipe_toml) {
    LoadedConfig loaded;
    apply_preset(loaded);
    for_each_option(loaded.config, [&](std::string_view name, auto& field, std::string_view,
                                       const Limits& limits) {
      apply(std::string(name), field, limits, loaded.origins);
    });
    derive(loaded);
    load_recipe_of(loaded, recipe_toml);
    if (!unreadable_) {
      for (const std::string& text : contradictions(loaded.config, faulty_)) {
        add_contradiction(loaded.origins, text);
      }
    }
    throw_problems();
    return loaded;
  }

 private:
  struct Problem {
    int64_t order = 0;  // line of the file; overrides behind it
    std::string text;
  };

  void add_problem(int64_t order, const std::string& origin, const std::string& text) {
    problems_.push_back({order, fmt::format("{}: {}", origin, text)});
  }

  static std::string example_in(std::string_view section) {
    for (const auto& [name, example] : examples()) {
      if (section_of(name) == section) return fmt::format("{} = {}", name, example);
    }
    return "";
  }

  void add_unknown_section(const Assignment& whole, const std::string& name, bool is_table) {
    add_problem(whole.order, whole.origin,
                is_table ? fmt::format("there is no section [{}]: did you mean [{}]?", name,
                                       nearest(name, sections()))
                         : fmt::format("{} stands outside of a section: did you mean {}?", name,
                                       nearest_option("." + name)));
  }

  void assign(const std::string& name, const Assignment& assignment) {
    if (examples().contains(name)) {
      assignments_[name] = assignment;  // the last one counts
      return;
    }
    add_problem(assignment.order, assignment.origin,
                fmt::format("there is no option {}: did you mean {}?", name, nearest_option(name)));
    faulty_.insert(name);  // a model that lacks a misspelt dimension is not looked at further
  }

  // The preset first; other model keys then change single dimensions.
  void apply_preset(LoadedConfig& loaded) {
    std::string preset(kDefaultPreset);
    Assignment source{"default", kAfterTheFile, preset};
    if (const auto found = assignments_.find("model.preset"); found != assignments_.end()) {
      source = found->second;
      preset = source.text().value_or("");  // another type is reported by apply
    } else if (assignments_.contains("model.n_layers") || assignments_.contains("model.width") ||
               assignments_.contains("model.n_heads")) {
      preset.clear();
    }
    if (preset.empty()) return;
    try {
      loaded.config.model = preset_model(preset);
    } catch (const ops::Error& error) {
      add_problem(source.order, source.origin, fmt::format("model.preset: {}", error.what()));
      faulty_.insert("model.preset");
      return;
    }
    for (const auto& [name, example] : examples()) {
      if (section_of(name) == "model") loaded.origins[name] = "preset " + preset;
    }
    loaded.origins["model.preset"] = source.origin;
  }

  template <class T>
  void apply(const std::string& name, T& field, const Limits& limits, Origins& origins) {
    const auto found = assignments_.find(name);
    if (found == assignments_.end()) {
      origins.try_emplace(name, "default");
      return;
    }
    const Assignment& given = found->second;
    origins[name] = given.origin;
    if (const auto refusal = take(field, given, limits, examples().at(name))) {
      add_problem(
          given.order, given.origin,
          fmt::format("{} = {}: write {} = {}", name, refusal->why, name, refusal->instead));
      faulty_.insert(name);
    }
  }

  void derive(LoadedConfig& loaded) const {
    ModelConfig& model = loaded.config.model;
    const ModelConfig given = model;
    const int64_t seq_len = loaded.config.train.seq_len;
    // Rotary positions have no weights, so a preset's length is no limit.
    if (model.position == PositionKind::kRope && !assignments_.contains("model.max_seq_len")) {
      model.max_seq_len = std::max(model.max_seq_len, seq_len);
    }
    derive_dimensions(model, seq_len);
    const auto mark = [&](const char* name, int64_t before, int64_t after) {
      if (before != after) loaded.origins[name] = "derived";
    };
    mark("model.n_kv_heads", given.n_kv_heads, model.n_kv_heads);
    mark("model.head_dim", given.head_dim, model.head_dim);
    mark("model.ffn_width", given.ffn_width, model.ffn_width);
    mark("model.max_seq_len", given.max_seq_len, model.max_seq_len);
  }

  bool model_is_sound(const Config& config) const {
    const bool readable = std::none_of(faulty_.begin(), faulty_.end(), [](const std::string& name) {
      return section_of(name) == "model" || section_of(name) == "train";
    });
    return readable && model_problems(config.model, config.train.seq_len).empty();
  }

  void load_recipe_of(LoadedConfig& loaded, const std::string& recipe_toml) {
    const std::string option = "precision.recipe";
    if (faulty_.contains(option)) return;
    PrecisionConfig& precision = loaded.config.precision;
    const std::string& origin = loaded.origins.at(option);
    RecipeReading reading = recipe_toml.empty()
                                ? read_recipe(precision.recipe)
                                : read_recipe_text(recipe_toml, precision.recipe + " of " + origin,
                                                   recipe_name(precision.recipe));
    const auto given = assignments_.find(option);
    const int64_t order = given == assignments_.end() ? kAfterTheFile : given->second.order;
    if (!reading.found) {
      add_problem(order, origin, fmt::format("{} = {}", option, reading.problems.front()));
    } else {
      for (std::string& text : reading.problems) problems_.push_back({order, std::move(text)});
    }
    precision.loaded = std::move(reading.recipe);
    if (!reading.found || reading.problems.empty() || !model_is_sound(loaded.config)) return;
    for (std::string& text : shape_problems(loaded.config, Purpose::kTraining)) {
      problems_.push_back({order, std::move(text)});
    }
  }

  // A contradiction stands where the first of its options that the user wrote stands.
  void add_contradiction(const Origins& origins, const std::string& text) {
    std::string origin = "default";
    int64_t order = kAfterTheFile;
    size_t first = std::string::npos;
    for (const auto& [name, assignment] : assignments_) {
      const size_t at = text.find(name + " = ");
      if (at >= first) continue;
      first = at;
      origin = origins.at(name);
      order = assignment.order;
    }
    add_problem(order, origin, text);
  }

  void throw_problems() {
    if (problems_.empty()) return;
    std::stable_sort(problems_.begin(), problems_.end(),
                     [](const Problem& a, const Problem& b) { return a.order < b.order; });
    std::string text = fmt::format(
        "{} in the configuration (qstep config list shows every option)",
        problems_.size() == 1 ? "one problem" : fmt::format("{} problems", problems_.size()));
    for (const Problem& problem : problems_) text += "\n  " + problem.text;
    throw ops::Error(ops::ExitCode::kConfig, text);
  }

  std::map<std::string, Assignment> assignments_;  // by option name
  std::set<std::string> faulty_;                   // unknown, or of a value that was refused
  std::vector<Problem> problems_;
  bool unreadable_ = false;
};

}  // namespace

LoadedConfig parse_config(const std::string& toml_text, const std::string& origin,
                          std::span<const std::string> overrides, const std::string& recipe_toml) {
  Reader reader;
  reader.read_toml(toml_text, origin);
  for (const std::string& text : overrides) reader.read_override(text);
  return reader.finish(recipe_toml);
}

LoadedConfig load_config(const std::string& path, std::span<const std::string> overrides) {
  if (path.empty()) return parse_config("", "", overrides);
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  std::ifstream file(path);
  std::string text;
  if (!is_folder) {
    text.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (!file.is_open() || file.bad() || is_folder) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("cannot read the configuration {}: give a TOML file, or "
                                 "section.key=value overrides alone",
                                 path));
  }
  return parse_config(text, path, overrides);
}

void set_recipe(Config& config, const std::string& name_or_path) {
  config.precision.loaded = load_recipe(name_or_path);
  config.precision.recipe = name_or_path;
}

LoadedConfig load_config_words(std::span<const std::string> words) {
  const bool has_file = !words.empty() && (words[0].find('=') == std::string::npos ||
                                           std::filesystem::exists(words[0]));
  return load_config(has_file ? words[0] : "", words.subspan(has_file ? 1 : 0));
}

LoadedConfig load_model_words(std::vector<std::string> words) {
  const bool names_model = !words.empty() && words[0].find('=') == std::string::npos &&
                           !std::filesystem::exists(words[0]) && !words[0].ends_with(".toml");
  if (!names_model) return load_config_words(words);
  const ModelConfig& model = preset_model(words[0]);
  words[0] = "model.preset=" + words[0];
  words.insert(words.begin() + 1, fmt::format("train.seq_len={}", model.max_seq_len));
  return load_config("", words);
}

}  // namespace qstep::trainer
