#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "data/error.h"
#include "data/npy.h"

namespace qstep::data {
namespace {

// Reads the few Python literals that a header is made of.
class Parser {
 public:
  Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader run() {
    NpyHeader header;
    std::vector<std::string> seen;
    expect('{');
    while (!accept('}')) {
      const std::string key = string("a key in quotes");
      if (std::count(seen.begin(), seen.end(), key) > 0) fail("each key once", key + " again");
      seen.push_back(key);
      expect(':');
      if (key == "descr") {
        if (peek() == '[') {
          fail("one type for all elements", "a structured type; save one of its fields");
        }
        header.descr = string("a type in quotes");
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
      } else if (key == "shape") {
        header.shape = tuple();
      } else {
        fail("the keys descr, fortran_order and shape", '"' + key + '"');
      }
      if (!accept(',') && peek() != '}') fail("',' or '}'", found());
    }
    for (const char* key : {"descr", "fortran_order", "shape"}) {
      if (std::count(seen.begin(), seen.end(), key) == 0) {
        fail(fmt::format("the key {}", key), "no such key");
      }
    }
    skip_spaces();
    if (at_ != text_.size()) fail("nothing behind '}'", found());
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& expected, const std::string& is) const {
    throw Error(
        fmt::format("{}: byte {} of the header: expected {}, found {}", where_, at_, expected, is));
  }
  std::string found() const {
    if (at_ == text_.size()) return "the end";
    const char c = text_[at_];
    return c >= ' ' && c <= '~' ? fmt::format("'{}'", c)
                                : fmt::format("byte 0x{:02X}", static_cast<unsigned char>(c));
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  char peek() {
    skip_spaces();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(fmt::format("'{}'", c), found());
  }

  std::string string(const char* what) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail(what, found());
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail("a closing quote", "none");
    const std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }
  bool boolean() {
    skip_spaces();
    for (const auto& [word, value] : {std::pair{"True", true}, std::pair{"False", false}}) {
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += std::string_view(word).size();
      return value;
    }
    fail("True or False", found());
  }
  std::vector<uint64_t> tuple() {
    std::vector<uint64_t> sizes;
    expect('(');
    while (!accept(')')) {
      sizes.push_back(integer());
      if (!accept(',') && peek() != ')') fail("',' or ')'", found());
    }
    return sizes;
  }
  uint64_t integer() {
    if (peek() < '0' || peek() > '9') fail("a size", found());
    uint64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (value > (std::numeric_limits<uint64_t>::max() - 9) / 10) fail("a size", "a larger one");
      value = 10 * value + static_cast<uint64_t>(text_[at_] - '0');
    }
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2
    return value;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

}  // namespace

NpyHeader parse_npy_header(std::string_view text, const std::string& where) {
  return Parser(text, where).run();
}

}  // namespace qstep::data
