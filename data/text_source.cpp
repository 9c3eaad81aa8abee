#include "data/text_source.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "data/error.h"
#include "data/utf8.h"
#include "data/word_border.h"

namespace qstep::data {
namespace {

// Where to end a piece of at most `limit` bytes of a longer text: at the last line end, else at the
// last border of words, else between characters.
size_t cut(std::string_view text, size_t limit) {
  const auto border = [&](size_t at) { return is_word_border(text[at - 1], text[at]); };
  for (size_t at = limit; at > 1; --at) {
    if (text[at - 1] == '\n' && border(at)) return at;
  }
  for (size_t at = limit; at > 1; --at) {
    if (border(at)) return at;
  }
  return utf8_cut(text, limit);
}

bool is_jsonl(std::string_view path) {
  for (const std::string_view compressed : {"", ".gz", ".zst"}) {
    if (path.ends_with(fmt::format(".jsonl{}", compressed))) return true;
  }
  return false;
}

}  // namespace

TextSource::TextSource(std::vector<TextInput> inputs, std::string field)
    : inputs_(std::move(inputs)), field_(std::move(field)) {}

bool TextSource::next(TextPiece& piece) {
  while (begin_ == text_.size() || !complete_) {
    if (!stream_ && !open_next_file()) return false;
    if (!fill()) {
      closed_bytes_ += inputs_[next_input_ - 1].file_bytes;
      stream_.reset();
    } else if (begin_ < text_.size()) {
      break;
    }
  }
  const std::string_view rest = std::string_view(text_).substr(begin_);
  const bool all = complete_ && rest.size() <= kPieceBytes;
  const size_t n = all ? rest.size() : cut(rest, kPieceBytes);
  piece = {.text = rest.substr(0, n), .document = n_documents_, .ends_document = all};
  begin_ += n;
  if (all) ++n_documents_;
  return true;
}

uint64_t TextSource::file_bytes_done() const {
  return closed_bytes_ + (stream_ ? stream_->file_bytes_done() : 0);
}

const std::string& TextSource::file() const { return inputs_.at(next_input_ - 1).path; }

bool TextSource::open_next_file() {
  if (next_input_ == inputs_.size()) return false;
  const std::string& path = inputs_[next_input_++].path;
  stream_ = open_byte_stream(path);
  is_jsonl_ = is_jsonl(path);
  text_.clear();
  lines_.clear();
  begin_ = line_begin_ = line_number_ = 0;
  complete_ = false;
  return true;
}

bool TextSource::fill() { return is_jsonl_ ? fill_from_jsonl() : fill_from_text(); }

// More than a piece, so that a piece that is not the last can be cut and the last is known as such.
bool TextSource::fill_from_text() {
  if (complete_) return false;  // the file was one document and that is done
  text_.erase(0, begin_);
  begin_ = 0;
  while (text_.size() <= kPieceBytes && !complete_) {
    const size_t had = text_.size();
    text_.resize(had + kPieceBytes);
    const size_t got = stream_->read(text_.data() + had, kPieceBytes);
    text_.resize(had + got);
    complete_ = got == 0;
  }
  return !text_.empty();
}

bool TextSource::fill_from_jsonl() {
  std::string line;
  do {
    if (!read_line(line)) return false;
    ++line_number_;
  } while (line.find_first_not_of(" \t\r") == std::string::npos);
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{}, line {}: {}", file(), line_number_, what));
  };
  const auto parsed = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) fail("expected a JSON object, found invalid JSON or invalid UTF-8");
  if (!parsed.is_object())
    fail(fmt::format("expected a JSON object, found {}", parsed.type_name()));
  const auto value = parsed.find(field_);
  if (value == parsed.end()) {
    fail(fmt::format("expected the field \"{}\", which is missing; name another with --field",
                     field_));
  }
  if (!value->is_string()) {
    fail(fmt::format("field \"{}\": expected a string, found {}", field_, value->type_name()));
  }
  text_ = value->get<std::string>();
  begin_ = 0;
  complete_ = true;
  return true;
}

// The next line without its line end; false at the end of the file.
bool TextSource::read_line(std::string& line) {
  size_t searched = line_begin_;
  for (;;) {
    const size_t end = lines_.find('\n', searched);
    if (end != std::string::npos) {
      line.assign(lines_, line_begin_, end - line_begin_);
      line_begin_ = end + 1;
      return true;
    }
    lines_.erase(0, line_begin_);
    line_begin_ = 0;
    const size_t had = searched = lines_.size();
    if (had > kMaxLineBytes) {
      throw Error(fmt::format("{}, line {}: expected a line of at most {} MiB, found a longer one",
                              file(), line_number_ + 1, kMaxLineBytes >> 20));
    }
    lines_.resize(had + kPieceBytes);
    const size_t got = stream_->read(lines_.data() + had, kPieceBytes);
    lines_.resize(had + got);
    if (got == 0) {
      line = std::exchange(lines_, {});
      return !line.empty();
    }
  }
}

}  // namespace qstep::data
