// Encodes pieces of text on all processors and appends their tokens to a store in the order of the
// pieces: the threads change the time, never the store.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_store.h"

namespace qstep::data {

class ParallelEncoder {
 public:
  ParallelEncoder(const Tokenizer& tokenizer, TokenStoreWriter& writer);

  // Text (copied) that belongs to the current document of a part. Empty text is nothing at all.
  void add(Part part, std::string_view text, bool ends_document);
  void flush();  // what was added is in the store

 private:
  struct Piece {
    Part part;
    std::string text;
    bool ends_document;
    std::vector<uint32_t> tokens;
  };

  const Tokenizer& tokenizer_;
  TokenStoreWriter& writer_;
  const unsigned n_threads_;
  std::vector<Piece> pieces_;
  uint64_t pending_bytes_ = 0;
};

}  // namespace qstep::data
