#include "trainer/base/flat_row.h"

#include <algorithm>

namespace qstep::trainer::report {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Where a text that begins here ends, behind its quote; npos: nowhere, or it is no simple one.
size_t text_end(std::string_view line, size_t at) {
  for (++at; at < line.size(); ++at) {
    const auto c = static_cast<unsigned char>(line[at]);
    if (c == '"') return at + 1;
    if (c == '\\' || c < 0x20 || c >= 0x80) return std::string_view::npos;
  }
  return std::string_view::npos;
}

// As JSON has them: no leading zeros, digits on both sides of the point and behind the exponent.
bool is_number(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  if (text.empty() || !is_digit(text.front()) || !is_digit(text.back())) return false;
  if (text.front() == '0' && text.size() > 1 && is_digit(text[1])) return false;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const size_t point = text.find('.');
  return error == std::errc() && end == text.data() + text.size() &&
         (point == std::string_view::npos || is_digit(text[point + 1]));
}

}  // namespace

bool FlatRow::parse(std::string_view line) {
  fields_.clear();
  if (line.size() < 2 || line.front() != '{' || line.back() != '}') return false;
  for (size_t at = 1; at < line.size();) {
    if (line[at] != '"') return false;
    const size_t key_end = text_end(line, at);
    if (key_end == std::string_view::npos || key_end >= line.size() || line[key_end] != ':') {
      return false;
    }
    const std::string_view key = line.substr(at + 1, key_end - at - 2);
    const size_t begin = key_end + 1;
    size_t end = begin;
    if (line[begin] == '"') {
      end = text_end(line, begin);
    } else {
      end = line.find_first_of(",}", begin);
      const std::string_view word = line.substr(begin, end - begin);
      if (word != "true" && word != "false" && word != "null" && !is_number(word)) return false;
    }
    if (end == std::string_view::npos || end >= line.size()) return false;
    fields_.emplace_back(key, line.substr(begin, end - begin));
    if (line[end] == '}') return end + 1 == line.size();
    if (line[end] != ',') return false;
    at = end + 1;
  }
  return false;
}

// Of equal keys the last one counts, as in a tree.
std::string_view FlatRow::value(std::string_view key) const {
  const auto found = std::find_if(fields_.rbegin(), fields_.rend(),
                                  [&](const auto& field) { return field.first == key; });
  return found == fields_.rend() ? std::string_view() : found->second;
}

}  // namespace qstep::trainer::report
