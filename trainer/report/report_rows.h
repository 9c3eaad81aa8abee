// Rows of a file of JSON lines as fields of structs, for readers that go on behind a bad line.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "trainer/base/flat_row.h"

namespace qstep::trainer::report {

// A row; a key that is not there, or null, leaves the field as it is. Throws std::invalid_argument
// that names the key when a value is of another type.
class Row {
 public:
  explicit Row(const nlohmann::json& json) : json_(&json) {}
  explicit Row(const FlatRow& flat) : flat_(&flat) {}

  bool has(const char* key) const {
    return flat_ != nullptr ? !flat_->value(key).empty() : json_->contains(key);
  }

  template <class T>
  void get(const char* key, T& field) const {
    if (flat_ != nullptr) {
      const std::string_view text = flat_->value(key);
      if (text.empty() || text == "null") return;
      const std::optional<T> value = flat_value<T>(text);
      if (!value) fail(key, wanted<T>(), std::string(text));
      field = *value;
      return;
    }
    const auto found = json_->find(key);
    if (found == json_->end() || found->is_null()) return;
    if (!fits<T>(*found)) fail(key, wanted<T>(), found->dump());
    field = found->template get<T>();
  }

 private:
  [[noreturn]] static void fail(const char* key, const char* expected, const std::string& found) {
    throw std::invalid_argument(fmt::format("{}: expected {}, found {}", key, expected, found));
  }
  template <class T>
  static bool fits(const nlohmann::json& value) {
    if constexpr (std::is_same_v<T, bool>) {
      return value.is_boolean();
    } else if constexpr (std::is_integral_v<T>) {
      return value.is_number_integer();
    } else if constexpr (std::is_floating_point_v<T>) {
      return value.is_number();
    } else if constexpr (std::is_same_v<T, std::string>) {
      return value.is_string();
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      return value.is_array() &&
             std::all_of(value.begin(), value.end(), [](const auto& x) { return x.is_string(); });
    } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
      return value.is_object() &&
             std::all_of(value.begin(), value.end(), [](const auto& x) { return x.is_string(); });
    } else {
      return value.is_object() &&
             std::all_of(value.begin(), value.end(), [](const auto& x) { return x.is_number(); });
    }
  }
  template <class T>
  static constexpr const char* wanted() {
    if constexpr (std::is_same_v<T, bool>) {
      return "true or false";
    } else if constexpr (std::is_integral_v<T>) {
      return "an integer";
    } else if constexpr (std::is_floating_point_v<T>) {
      return "a number or null";
    } else if constexpr (std::is_same_v<T, std::string>) {
      return "a text";
    } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      return "texts";
    } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
      return "an object of texts";
    } else {
      return "an object of numbers";
    }
  }

  // One of them.
  const nlohmann::json* json_ = nullptr;
  const FlatRow* flat_ = nullptr;
};

struct RowProblems {
  std::vector<std::string> problems;  // "path:line: ..."
  bool torn = false;                  // the last line is unfinished
};

// Calls f(type, row) for every row. A line that cannot be read, or whose row f refuses with
// std::invalid_argument, is reported and left out.
RowProblems for_each_row(const std::string& path,
                         const std::function<void(const std::string& type, const Row& row)>& f);

}  // namespace qstep::trainer::report
