// The token store: one HDF5 file with the tokens of a corpus, its documents, its validation part
// and its tokenizer. Specified byte by byte in data/README.md. Reading needs constant memory.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5.h"
#include "data/tokenizer.h"

namespace qstep::data {

enum class Part { kTrain, kValidation };
inline constexpr std::array<Part, 2> kParts = {Part::kTrain, Part::kValidation};
std::string_view part_name(Part part);  // "train", "validation"

inline constexpr uint64_t kStoreFormatVersion = 1;

// 65,536 tokens = 128 or 256 KiB: reading one random sample of T + 1 tokens reads and checksums one
// or two chunks, some 0.15 ms; chunks of several MiB would cost milliseconds. Smaller ones would
// make the chunk index grow (1e9 tokens: 15,259 chunks) without making samples noticeably cheaper.
inline constexpr uint64_t kChunkTokens = 65536;

struct PartInfo {
  uint64_t num_tokens = 0;
  uint64_t num_documents = 0;
  uint64_t num_bytes = 0;    // UTF-8 bytes that the tokens stand for; 0: unknown
  std::string content_hash;  // XXH3-128 of tokens, then doc_offsets, as stored; 32 hex digits
};

struct StoreInfo {
  uint64_t format_version = kStoreFormatVersion;
  std::string tokenizer;         // "bytes", "sentencepiece", "llmc-gpt2", ...
  std::string tokenizer_sha256;  // 64 hex digits
  uint64_t vocab_size = 0;
  uint64_t eos_id = 0;
  std::string source;                         // where the text came from, for people
  Hdf5Type token_type = Hdf5Type::kU16;       // kU16 or kU32
  std::array<PartInfo, kParts.size()> parts;  // by Part
  const PartInfo& part(Part p) const { return parts[static_cast<size_t>(p)]; }
};

// Called now and then with bytes done and bytes in all; may throw to stop the work.
using Progress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

class TokenStore {
 public:
  // Opens and checks what can be checked cheaply: types, attributes, lengths that must agree, the
  // borders of doc_offsets. Throws Error with file, object, expected and found.
  static TokenStore open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const StoreInfo& info() const { return info_; }
  uint64_t num_tokens(Part part) const { return info_.part(part).num_tokens; }
  uint64_t num_bytes(Part part) const { return info_.part(part).num_bytes; }

  // out[i] = token first + i. Every id is checked to be below vocab_size. Any thread.
  void read(Part part, uint64_t first, std::span<uint32_t> out) const;

  // The tokenizer, checked against tokenizer_sha256. Throws where the store has no usable one.
  std::unique_ptr<Tokenizer> tokenizer() const;

  // Reads everything: checksums, token range, order of doc_offsets, content hashes, tokenizer.
  void verify(const Progress& progress = {}) const;

 private:
  struct PartData {
    Hdf5Dataset tokens, doc_offsets;
    bool present = false;
  };
  TokenStore() = default;
  void open_part(Part part);
  void verify_part(Part part, uint64_t& done, uint64_t total, const Progress& progress) const;
  const PartData& data(Part part) const { return parts_[static_cast<size_t>(part)]; }

  Hdf5File file_;
  std::array<PartData, kParts.size()> parts_;
  StoreInfo info_;
  mutable std::vector<uint16_t> narrow_;  // landing place of u16 tokens; used under Hdf5Lock
};

// What a writer must know before the first token.
struct StoreHeader {
  std::string tokenizer;  // name
  std::string model;      // serialized tokenizer, stored when not empty
  uint32_t vocab_size = 0;
  uint32_t eos_id = 0;
  std::string source;
};

// Streams a store to disk in constant memory. The file appears under its name only when finish()
// has succeeded (temporary name, fsync, rename); otherwise the destructor removes what was written.
class TokenStoreWriter {
 public:
  TokenStoreWriter(const std::string& path, StoreHeader header);
  ~TokenStoreWriter();
  TokenStoreWriter(const TokenStoreWriter&) = delete;
  TokenStoreWriter& operator=(const TokenStoreWriter&) = delete;

  // Tokens of the current document of a part, and the text bytes they stand for.
  void append(Part part, std::span<const uint32_t> tokens, uint64_t text_bytes);
  void end_document(Part part);  // without tokens since the last call: no document
  StoreInfo finish();

 private:
  struct PartWriter;
  PartWriter& writer(Part part) { return *parts_[static_cast<size_t>(part)]; }

  std::string path_, temporary_path_;
  StoreHeader header_;
  Hdf5File file_;
  std::array<std::unique_ptr<PartWriter>, kParts.size()> parts_;
};

}  // namespace qstep::data
