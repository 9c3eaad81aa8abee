// Text to token ids and back. Every tokenizer here is lossless: decode(encode(bytes)) == bytes for
// any bytes, valid UTF-8 or not. Immutable after construction; all functions may run on any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/error.h"

namespace qstep::data {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual const std::string& name() const = 0;  // "bytes" or "sentencepiece"
  virtual uint32_t vocab_size() const = 0;      // ids are below this
  virtual uint32_t eos_id() const = 0;          // ends every document; decodes to nothing
  virtual std::vector<uint32_t> encode(std::string_view text) const = 0;  // no eos appended
  virtual std::string decode(std::span<const uint32_t> ids) const = 0;    // id range is checked
  virtual const std::string& model() const = 0;  // serialized model; empty for bytes

  // Identity of the tokenizer: SHA-256 of the model, or of the name where there is no model.
  std::string sha256() const;
};

// Ids 0..255 are bytes, 256 ends a document.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

// model_bytes: content of a SentencePiece .model file (BPE or unigram) with byte pieces and an
// end-of-sentence piece. Its normalisation is switched off, so that nothing of the text is lost.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string model_bytes);

// By the name and model that a token store records.
std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name, std::string model_bytes);

// SHA-256 that goes with a name and model; what Tokenizer::sha256() returns.
std::string tokenizer_sha256(std::string_view name, std::string_view model);

}  // namespace qstep::data
