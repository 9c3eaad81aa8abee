// Documents out of files and folders, in a fixed order and in pieces, so that neither a huge file
// nor many files need much memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_stream.h"

namespace qstep::data {

struct TextInput {
  std::string path;
  uint64_t file_bytes = 0;  // on disk
};

// Text files that a folder is searched for when no pattern is given.
inline const std::vector<std::string> kDefaultGlobs = {
    "*.txt", "*.txt.gz", "*.txt.zst", "*.md", "*.jsonl", "*.jsonl.gz", "*.jsonl.zst"};

// Files as named; folders recursively, sorted by path, those files whose name (or path below the
// folder, when the pattern has a '/') matches one of the patterns. Hidden entries are passed over.
// Throws Error when something does not exist or a folder has no matching file.
std::vector<TextInput> list_inputs(const std::vector<std::string>& inputs,
                                   const std::vector<std::string>& globs);

// A piece of a document. Pieces end after line ends where possible and never inside a character.
struct TextPiece {
  std::string_view text;  // not empty; valid until the following next()
  uint64_t document = 0;  // counted over all inputs, from 0
  bool ends_document = false;
};

// *.jsonl: a document per line, the string `field` of its object (blank lines are passed over). Any
// other file is one document. Empty documents are passed over. Errors name file and line.
class TextSource {
 public:
  static constexpr size_t kPieceBytes = size_t{64} << 10;
  static constexpr size_t kMaxLineBytes = size_t{256} << 20;  // of one .jsonl line

  TextSource(std::vector<TextInput> inputs, std::string field);

  bool next(TextPiece& piece);       // false after the last document
  uint64_t file_bytes_done() const;  // of the sizes on disk, over all inputs
  const std::string& file() const;   // of the piece last returned

 private:
  bool open_next_file();
  bool fill();  // text_ gets something to cut, or false at the end of the file
  bool fill_from_text();
  bool fill_from_jsonl();
  bool read_line(std::string& line);

  const std::vector<TextInput> inputs_;
  const std::string field_;
  size_t next_input_ = 0;
  uint64_t closed_bytes_ = 0;  // sizes of the files that are done
  std::unique_ptr<ByteStream> stream_;
  bool is_jsonl_ = false;

  std::string text_;  // of the current document, from begin_ on
  size_t begin_ = 0;
  bool complete_ = true;      // text_ holds the rest of the document
  uint64_t n_documents_ = 0;  // ended so far

  std::string lines_;  // of a .jsonl file, from line_begin_ on
  size_t line_begin_ = 0;
  uint64_t line_number_ = 0;
};

}  // namespace qstep::data
