// Names inside a token store, shared by its reader and its writer. Specified in data/README.md.
#pragma once

#include <cstdint>
#include <string>

#include "data/token_store.h"

namespace qstep::data {

inline constexpr uint64_t kMaxVocabU16 = 65536;  // u16 tokens up to this vocabulary, u32 above

namespace dataset {
inline constexpr const char* kTokens = "/tokens";
inline constexpr const char* kDocOffsets = "/doc_offsets";
inline constexpr const char* kTokenizerModel = "/tokenizer_model";
}  // namespace dataset

namespace attribute {
inline constexpr const char* kFormatVersion = "format_version";
inline constexpr const char* kTokenizer = "tokenizer";
inline constexpr const char* kTokenizerSha256 = "tokenizer_sha256";
inline constexpr const char* kVocabSize = "vocab_size";
inline constexpr const char* kEosId = "eos_id";
inline constexpr const char* kSource = "source";
inline constexpr const char* kNumTokens = "num_tokens";
inline constexpr const char* kNumBytes = "num_bytes";
inline constexpr const char* kContentHash = "content_hash";
}  // namespace attribute

// Prefix of a part's datasets, and the object that carries its attributes.
inline std::string group_of(Part part) { return part == Part::kTrain ? "" : "/validation"; }
inline std::string attributes_of(Part part) { return part == Part::kTrain ? "/" : "/validation"; }

}  // namespace qstep::data
