// From TOML and overrides to a checked Config. Problems are collected, never thrown one by one.
#include "trainer/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <variant>

#include "trainer/config_options.h"
#include "trainer/nearest.h"

namespace qstep::trainer {

namespace {

// A value as TOML has it; Other is a kind that no option takes ("array", "table", "date").
struct Other {
  std::string kind;
};
using Value = std::variant<bool, int64_t, double, std::string, Other>;

struct Assignment {
  std::string where;  // "run.toml:12", "command line"
  Value value;
  std::string typed;  // on the command line: the text behind '='
};

Value to_value(const toml::node& node) {
  if (const auto* x = node.as_boolean()) return x->get();
  if (const auto* x = node.as_integer()) return x->get();
  if (const auto* x = node.as_floating_point()) return x->get();
  if (const auto* x = node.as_string()) return x->get();
  if (node.is_table()) return Other{"table"};
  if (node.is_array()) return Other{"array"};
  return Other{"date or time"};
}

// "integer 5", "text \"many\"".
std::string describe(const Value& value) {
  struct Describe {
    std::string operator()(bool x) const { return toml_value(x); }
    std::string operator()(int64_t x) const { return "integer " + toml_value(x); }
    std::string operator()(double x) const { return "number " + toml_value(x); }
    std::string operator()(const std::string& x) const { return "text " + toml_value(x); }
    std::string operator()(const Other& x) const { return x.kind; }
  };
  return std::visit(Describe{}, value);
}

// One value of every option that works, by name, as TOML.
std::map<std::string, std::string> make_examples() {
  Config config;
  config.model = preset_model(kDefaultPreset);
  config.data.train = "corpus.h5";
  std::map<std::string, std::string> examples;
  for_each_option(config, [&](std::string_view name, const auto& field, std::string_view,
                              const Limits&) { examples[std::string(name)] = toml_value(field); });
  return examples;
}

const std::map<std::string, std::string>& examples() {
  static const std::map<std::string, std::string> map = make_examples();
  return map;
}

// The option meant by an unknown one: the same key in another section, or the fewest edits.
std::string nearest_option(const std::string& typed) {
  std::vector<std::string> names, same_key;
  for (const auto& [name, example] : examples()) {
    names.push_back(name);
    if (key_of(name) == key_of(typed)) same_key.push_back(name);
  }
  return nearest(typed, same_key.empty() ? names : same_key);
}

// The rule that x breaks ("must be at least 1") and a value that keeps it; nothing when x is fine.
struct Breach {
  std::string rule;
  std::optional<double> instead;
};
std::optional<Breach> breach_of(double x, const Limits& limits) {
  if (std::isnan(x)) return Breach{"must be a number", {}};
  if (limits.min_excluded && x <= limits.min)
    return Breach{fmt::format("must be above {}", limits.min), {}};
  if (x < limits.min) return Breach{fmt::format("must be at least {}", limits.min), limits.min};
  if (limits.max_excluded && x >= limits.max) {
    return Breach{
        std::isinf(limits.max) ? "must be finite" : fmt::format("must be below {}", limits.max),
        {}};
  }
  if (x > limits.max) return Breach{fmt::format("must be at most {:.0f}", limits.max), limits.max};
  return std::nullopt;
}

class Reader {
 public:
  void read_toml(const std::string& text, const std::string& origin) {
    toml::table root;
    try {
      root = toml::parse(text, origin);
    } catch (const toml::parse_error& error) {
      add_problem(fmt::format("{}:{}", origin, error.source().begin.line),
                  fmt::format("not TOML: {}", error.description()));
      unreadable_ = true;
      return;
    }
    const auto place = [&](const toml::node& node) {
      return fmt::format("{}:{}", origin, node.source().begin.line);
    };
    for (const auto& [section_key, section] : root) {
      const std::string section_name(section_key.str());
      if (!is_section(section_name)) {
        unknown_section(place(section), section_name, section.is_table());
        continue;
      }
      if (!section.is_table()) {
        add_problem(place(section),
                    fmt::format("{} is a section, found {}: write {}", section_name,
                                describe(to_value(section)), example_in(section_name)));
        continue;
      }
      for (const auto& [key, node] : *section.as_table()) {
        const std::string name = fmt::format("{}.{}", section_name, key.str());
        assign(name, {place(node), to_value(node), ""});
      }
    }
  }

  void read_override(const std::string& text) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      add_problem("command line", fmt::format("\"{}\" is not section.key=value, for instance "
                                              "train.steps=1000",
                                              text));
      return;
    }
    const std::string typed = text.substr(equals + 1);
    Value value = typed;  // a bare word, unless it is one TOML value
    try {
      const toml::table table = toml::parse("value = " + typed);
      if (table.size() == 1) value = to_value(*table.get("value"));
    } catch (const toml::parse_error&) {
    }
    assign(text.substr(0, equals), {"command line", value, typed});
  }

  LoadedConfig finish() {
    LoadedConfig loaded;
    apply_preset(loaded);
    for_each_option(loaded.config, [&](std::string_view name_view, auto& field, std::string_view,
                                       const Limits& limits) {
      const std::string name(name_view);
      const auto found = assignments_.find(name);
      if (found == assignments_.end()) {
        loaded.origins.try_emplace(name, "default");
      } else {
        loaded.origins[name] = found->second.where;
        take(name, field, found->second, limits);
      }
    });
    derive(loaded);
    if (!unreadable_) {
      for (const std::string& text : contradictions(loaded.config, faulty_)) {
        add_contradiction(loaded.origins, text);
      }
    }
    throw_problems();
    return loaded;
  }

 private:
  void add_problem(const std::string& where, const std::string& text) {
    problems_.push_back(fmt::format("{}: {}", where, text));
  }

  static bool is_section(std::string_view name) {
    for (const auto& [option, example] : examples()) {
      if (section_of(option) == name) return true;
    }
    return false;
  }

  static std::string example_in(std::string_view section) {
    for (const auto& [name, example] : examples()) {
      if (section_of(name) == section) return fmt::format("{} = {}", name, example);
    }
    return "";
  }

  void unknown_section(const std::string& where, const std::string& name, bool is_table) {
    if (is_table) {
      std::set<std::string> sections;
      for (const auto& [option, example] : examples()) sections.emplace(section_of(option));
      add_problem(where, fmt::format("there is no section [{}]: did you mean [{}]?", name,
                                     nearest(name, sections)));
    } else {
      const std::string option = nearest_option("." + name);
      add_problem(where,
                  fmt::format("{} stands outside of a section: did you mean {}?", name, option));
    }
  }

  void assign(const std::string& name, Assignment assignment) {
    if (!examples().contains(name)) {
      add_problem(assignment.where, fmt::format("there is no option {}: did you mean {}?", name,
                                                nearest_option(name)));
      if (section_of(name) == "model") faulty_.insert(name);  // the model may be incomplete for it
      return;
    }
    assignments_[name] = std::move(assignment);
  }

  // The preset first; other model keys then change single dimensions.
  void apply_preset(LoadedConfig& loaded) {
    std::string preset(kDefaultPreset);
    std::string origin = "default";
    const auto found = assignments_.find("model.preset");
    if (found != assignments_.end()) {
      const std::string* text = std::get_if<std::string>(&found->second.value);
      preset = text != nullptr ? *text : found->second.typed;
      origin = found->second.where;
    } else if (assignments_.contains("model.n_layers") || assignments_.contains("model.width") ||
               assignments_.contains("model.n_heads")) {
      preset.clear();
    }
    if (preset.empty()) return;
    try {
      loaded.config.model = preset_model(preset);
    } catch (const ops::Error& error) {
      add_problem(origin, fmt::format("model.preset: {}", error.what()));
      faulty_.insert("model.preset");
      return;
    }
    for (const auto& [name, example] : examples()) {
      if (section_of(name) == "model") loaded.origins[name] = "preset " + preset;
    }
    loaded.origins["model.preset"] = origin;
  }

  template <class T>
  void take(const std::string& name, T& field, const Assignment& assignment, const Limits& limits) {
    if (faulty_.contains(name)) return;
    const auto reject = [&](const std::string& why, const std::string& instead) {
      add_problem(assignment.where,
                  fmt::format("{} = {}: write {} = {}", name, why, name, instead));
      faulty_.insert(name);
    };
    const std::string& example = examples().at(name);
    const auto wrong_type = [&](const std::string& expected, const std::string& instead) {
      reject(fmt::format("{} is not {}", describe(assignment.value), expected), instead);
    };

    if constexpr (std::is_same_v<T, bool>) {
      const bool* x = std::get_if<bool>(&assignment.value);
      if (x == nullptr) return wrong_type("true or false", example);
      field = *x;
    } else if constexpr (std::is_integral_v<T>) {
      const int64_t* x = std::get_if<int64_t>(&assignment.value);
      if (x == nullptr) return wrong_type("an integer", integer_instead(assignment.value, example));
      if (const auto breach = breach_of(static_cast<double>(*x), limits)) {
        const std::string instead =
            breach->instead ? toml_value(static_cast<int64_t>(*breach->instead)) : example;
        return reject(fmt::format("{} {}", *x, breach->rule), instead);
      }
      field = static_cast<T>(*x);
    } else if constexpr (std::is_floating_point_v<T>) {
      const int64_t* integer = std::get_if<int64_t>(&assignment.value);
      const double* x = std::get_if<double>(&assignment.value);
      if (integer == nullptr && x == nullptr) return wrong_type("a number", example);
      const double number = integer != nullptr ? static_cast<double>(*integer) : *x;
      if (const auto breach = breach_of(number, limits)) {
        const std::string instead = breach->instead ? toml_value(*breach->instead) : example;
        return reject(fmt::format("{} {}", toml_value(number), breach->rule), instead);
      }
      field = number;
    } else {
      // On the command line every value of a text option is text: run.dir=2024 needs no quotes.
      const std::string* in_quotes = std::get_if<std::string>(&assignment.value);
      if (in_quotes == nullptr && assignment.where != "command line") {
        return wrong_type("text", example);
      }
      take_text(field, in_quotes != nullptr ? *in_quotes : assignment.typed, limits, example,
                reject);
    }
  }

  // The integer that was probably meant: 1e6 -> 1000000, "500" -> 500.
  static std::string integer_instead(const Value& value, const std::string& example) {
    double x = NAN;
    if (const double* number = std::get_if<double>(&value)) {
      x = *number;
    } else if (const std::string* text = std::get_if<std::string>(&value)) {
      std::istringstream stream(*text);
      if (!(stream >> x) || !(stream >> std::ws).eof()) x = NAN;
    }
    return std::abs(x) < kMaxCount ? fmt::format("{:.0f}", x) : example;
  }

  template <class T, class Reject>
  static void take_text(T& field, const std::string& text, const Limits& limits,
                        const std::string& example, Reject&& reject) {
    std::vector<std::string_view> words;
    if constexpr (std::is_enum_v<T>) {
      for (const auto& [name, choice] : choices_of(field)) {
        if (name == text) {
          field = choice;
          return;
        }
        words.push_back(name);
      }
    } else {
      for (const std::string_view word : limits.words) {
        if (!word.empty()) words.push_back(word);
      }
      const bool allowed =
          words.empty() || std::find(words.begin(), words.end(), text) != words.end();
      if (allowed && limits.not_empty && text.empty()) return reject("\"\" is empty", example);
      if (allowed) {
        field = text;
        return;
      }
    }
    reject(fmt::format("{} is not one of {}", toml_string(text), type_name(field, limits)),
           toml_string(nearest(text, words)));
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
    if (model.n_kv_heads != given.n_kv_heads) loaded.origins["model.n_kv_heads"] = "derived";
    if (model.head_dim != given.head_dim) loaded.origins["model.head_dim"] = "derived";
    if (model.ffn_width != given.ffn_width) loaded.origins["model.ffn_width"] = "derived";
    if (model.max_seq_len != given.max_seq_len) loaded.origins["model.max_seq_len"] = "derived";
  }

  // A problem between several values stands where the first of them was written by the user.
  void add_contradiction(const Origins& origins, const std::string& text) {
    std::string where = "default";
    size_t first = std::string::npos;
    for (const auto& [name, origin] : origins) {
      const size_t at = text.find(name + " = ");
      if (assignments_.contains(name) && at < first) {
        where = origin;
        first = at;
      }
    }
    add_problem(where, text);
  }

  void throw_problems() const {
    if (problems_.empty()) return;
    throw ops::Error(
        ops::ExitCode::kConfig,
        fmt::format(
            "{} in the configuration (qstep config list shows every option)\n  {}",
            problems_.size() == 1 ? "one problem" : fmt::format("{} problems", problems_.size()),
            fmt::join(problems_, "\n  ")));
  }

  std::map<std::string, Assignment> assignments_;  // by option name; the last one counts
  std::set<std::string> faulty_;                   // options whose value was refused
  std::vector<std::string> problems_;
  bool unreadable_ = false;
};

}  // namespace

LoadedConfig parse_config(const std::string& toml_text, const std::string& origin,
                          std::span<const std::string> overrides) {
  Reader reader;
  reader.read_toml(toml_text, origin);
  for (const std::string& text : overrides) reader.read_override(text);
  return reader.finish();
}

LoadedConfig load_config(const std::string& path, std::span<const std::string> overrides) {
  if (path.empty()) return parse_config("", "", overrides);
  std::ifstream file(path);
  std::string text;
  if (!std::filesystem::is_directory(path)) {
    text.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (!file.is_open() || file.bad() || std::filesystem::is_directory(path)) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("cannot read the configuration {}: give a TOML file, or "
                                 "section.key=value overrides alone",
                                 path));
  }
  return parse_config(text, path, overrides);
}

}  // namespace qstep::trainer
