// One value into one option: its type, its limits, and what to write instead when it breaks them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "trainer/base/nearest.h"
#include "trainer/config/config_options.h"

namespace qstep::trainer {

// A value as TOML has it; Other is a kind that no option takes ("array", "table", "date or time").
struct Other {
  std::string kind;
};
using Value = std::variant<bool, int64_t, double, std::string, Other>;

struct Assignment {
  std::string origin;  // "run.toml:12", "command line"
  int64_t order = 0;   // of problems: the line, behind all lines for overrides
  Value value;
  std::optional<std::string> bare = {};  // on the command line: the text behind '='

  // What an option that takes text gets: run.dir=2024 needs no quotes on the command line.
  std::optional<std::string> text() const {
    if (const std::string* quoted = std::get_if<std::string>(&value)) return *quoted;
    return bare;
  }
};

// "integer 5", "text \"many\"", "array".
inline std::string describe(const Value& value) {
  struct Describe {
    std::string operator()(bool x) const { return toml_value(x); }
    std::string operator()(int64_t x) const { return "integer " + toml_value(x); }
    std::string operator()(double x) const { return "number " + toml_value(x); }
    std::string operator()(const std::string& x) const { return "text " + toml_value(x); }
    std::string operator()(const Other& x) const { return x.kind; }
  };
  return std::visit(Describe{}, value);
}

// Why a value was refused, and one that works, as TOML.
struct Refusal {
  std::string why;
  std::string instead;
};

// The rule of `limits` that x breaks, and the limit itself where that is allowed.
struct Breach {
  std::string rule;
  std::optional<double> limit;
};
inline std::optional<Breach> breach_of(double x, const Limits& limits) {
  if (std::isnan(x)) return Breach{"must be a number", {}};
  if (limits.min_excluded && x <= limits.min) {
    return Breach{fmt::format("must be above {}", limits.min), {}};
  }
  if (x < limits.min) return Breach{fmt::format("must be at least {}", limits.min), limits.min};
  if (limits.max_excluded && x >= limits.max) {
    return Breach{
        std::isinf(limits.max) ? "must be finite" : fmt::format("must be below {}", limits.max),
        {}};
  }
  if (x > limits.max) return Breach{fmt::format("must be at most {:.0f}", limits.max), limits.max};
  return std::nullopt;
}

// The integer that was probably meant: 1e6 -> 1000000, "500" -> 500.
inline std::string integer_instead(const Value& value, const std::string& example) {
  double x = NAN;
  if (const double* number = std::get_if<double>(&value)) {
    x = *number;
  } else if (const std::string* text = std::get_if<std::string>(&value)) {
    std::istringstream stream(*text);
    if (!(stream >> x) || !(stream >> std::ws).eof()) x = NAN;
  }
  return std::abs(x) < kMaxCount ? fmt::format("{:.0f}", x) : example;
}

// The words a text may be; empty: any text.
template <class T>
std::vector<std::string_view> words_of(const T& field, const Limits& limits) {
  std::vector<std::string_view> words;
  if constexpr (HasChoices<T>) {
    for (const auto& [name, choice] : choices_of(field)) words.push_back(name);
  } else {
    for (const std::string_view word : limits.words) {
      if (!word.empty()) words.push_back(word);
    }
  }
  return words;
}

// Puts the value into `field`, or leaves it and says why not. `example` is a value that works, as
// TOML.
template <class T>
std::optional<Refusal> take(T& field, const Assignment& given, const Limits& limits,
                            const std::string& example) {
  const auto wrong_type = [&](std::string_view expected, const std::string& instead) {
    return Refusal{fmt::format("{} is not {}", describe(given.value), expected), instead};
  };
  if constexpr (std::is_same_v<T, bool>) {
    const bool* x = std::get_if<bool>(&given.value);
    if (x == nullptr) return wrong_type("true or false", example);
    field = *x;
  } else if constexpr (std::is_integral_v<T>) {
    const int64_t* x = std::get_if<int64_t>(&given.value);
    if (x == nullptr) return wrong_type("an integer", integer_instead(given.value, example));
    if (const auto breach = breach_of(static_cast<double>(*x), limits)) {
      return Refusal{fmt::format("{} {}", *x, breach->rule),
                     breach->limit ? toml_value(static_cast<int64_t>(*breach->limit)) : example};
    }
    field = static_cast<T>(*x);
  } else if constexpr (std::is_floating_point_v<T>) {
    const int64_t* integer = std::get_if<int64_t>(&given.value);
    const double* number = std::get_if<double>(&given.value);
    if (integer == nullptr && number == nullptr) return wrong_type("a number", example);
    const double x = integer != nullptr ? static_cast<double>(*integer) : *number;
    if (const auto breach = breach_of(x, limits)) {
      return Refusal{fmt::format("{} {}", toml_value(x), breach->rule),
                     breach->limit ? toml_value(*breach->limit) : example};
    }
    field = x;
  } else {
    const std::optional<std::string> text = given.text();
    if (!text) return wrong_type("text", example);
    const std::vector<std::string_view> words = words_of(field, limits);
    const auto word = std::find(words.begin(), words.end(), *text);
    if (!words.empty() && word == words.end()) {
      return Refusal{
          fmt::format("{} is not one of {}", toml_string(*text), type_name(field, limits)),
          toml_string(nearest(*text, words))};
    }
    if (limits.not_empty && text->empty()) return Refusal{"\"\" must not be empty", example};
    if constexpr (HasChoices<T>) {
      field = choices_of(field)[static_cast<size_t>(word - words.begin())].second;
    } else {
      field = *text;
    }
  }
  return std::nullopt;
}

}  // namespace qstep::trainer
