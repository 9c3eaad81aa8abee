// A line of JSON without nesting, read without building a tree: what the files of ranks consist of,
// half a million lines of them behind a long run.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace qstep::trainer::report {

class FlatRow {
 public:
  // Views of the line, which outlives them. False for anything but one object, written without
  // blanks, of numbers, true, false, null and texts without escapes and beyond ASCII; a JSON parser
  // may still read that.
  bool parse(std::string_view line);

  // As they stand in the line, texts with their quotes; empty: the key is not there.
  std::string_view value(std::string_view key) const;

 private:
  std::vector<std::pair<std::string_view, std::string_view>> fields_;
};

// None where the value is of another type.
template <class T>
std::optional<T> flat_value(std::string_view text) {
  if constexpr (std::is_same_v<T, bool>) {
    if (text == "true") return true;
    if (text == "false") return false;
    return std::nullopt;
  } else if constexpr (std::is_arithmetic_v<T>) {
    T number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (text.front() != '"') return std::nullopt;
    return std::string(text.substr(1, text.size() - 2));
  } else {
    return std::nullopt;
  }
}

}  // namespace qstep::trainer::report
