// A file of rows: one JSON object a line, appended with one write each, so that a kill loses at
// most the last line; and the text of such an object.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace qstep::trainer {

// Rewrites the file, if there is one, with the rows worth keeping: whole ones that speak of no
// step beyond `last_step` (a resumed run writes those again). last_step 0 keeps none. Calls
// f(row, step) for each that stays.
void keep_rows(const std::string& path, int64_t last_step,
               const std::function<void(const nlohmann::json& row, int64_t step)>& f);

// Its "type"; "" where that is no text.
std::string type_of_row(const nlohmann::json& row);

// JSON objects, key by key, as text: writing numbers allocates nothing once the memory is there.
class JsonText {
 public:
  void open();  // an object without a key: a whole one
  void open_object(std::string_view key);
  void close_object();
  // Floats have the fewest digits that read back to the same bits; null is what is not finite.
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(std::string_view key, T value) {
    put_key(key);
    put_value(value);
  }
  void put(std::string_view key, std::string_view text);  // escaped
  void put_texts(std::string_view key, std::span<const std::string_view> texts);
  void put_null(std::string_view key);
  // What stands between objects.
  void separate(std::string_view text) { text_.append(text); }

  std::string_view text() const { return {text_.data(), text_.size()}; }
  void clear() { text_.clear(); }

 private:
  void put_key(std::string_view key);
  template <class T>
  void put_value(T value) {
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(value)) {
        fmt::format_to(std::back_inserter(text_), "null");
        return;
      }
    }
    fmt::format_to(std::back_inserter(text_), "{}", value);
  }

  fmt::memory_buffer text_;
  bool first_key_ = true;
};

class JsonLines {
 public:
  // Appends to the file, which may be new. Error (disk).
  explicit JsonLines(const std::string& path);
  ~JsonLines();
  JsonLines(const JsonLines&) = delete;
  JsonLines& operator=(const JsonLines&) = delete;

  // One row: open, its keys, append.
  void open(std::string_view type, int64_t step);
  template <class T>
  void put(std::string_view key, const T& value) {
    line_.put(key, value);
  }
  void put_texts(std::string_view key, std::span<const std::string_view> texts) {
    line_.put_texts(key, texts);
  }
  void put_null(std::string_view key) { line_.put_null(key); }
  void open_object(std::string_view key) { line_.open_object(key); }
  void close_object() { line_.close_object(); }
  void append();

  // Every row so far is durable when this returns.
  void sync() const;

 private:
  int fd_ = -1;
  std::string path_;
  JsonText line_;
};

}  // namespace qstep::trainer
