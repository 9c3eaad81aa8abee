// Token files of llm.c: 256 four-byte header words, then the tokens. Little-endian.
// GPT-2: magic 20240520, version 1, u16 tokens. Llama-3: magic 20240801, version 7, u32 tokens.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_store.h"

namespace qstep::data {

// One row per kind of file; the only place that knows their constants.
struct LlmcKind {
  const char* tokenizer;  // name in the token store; its model is not part of llm.c's files
  int32_t magic;
  int32_t version;
  uint32_t token_bytes;
  uint32_t vocab_size;
  uint32_t end_of_text;
};
inline constexpr LlmcKind kLlmcGpt2 = {"llmc-gpt2", 20240520, 1, 2, 50257, 50256};
inline constexpr LlmcKind kLlmcLlama3 = {"llmc-llama3", 20240801, 7, 4, 128256, 128001};

inline constexpr uint64_t kLlmcHeaderBytes = 256 * 4;

class LlmcTokenFile {
 public:
  // Checks magic, version, count and the exact size of the file.
  explicit LlmcTokenFile(const std::string& path);

  const std::string& path() const { return path_; }
  const LlmcKind& kind() const { return *kind_; }
  uint64_t num_tokens() const { return num_tokens_; }
  // The next tokens in order, as many as there are and fit. Checks their range.
  std::span<const uint32_t> read_next(std::span<uint32_t> out);

 private:
  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  const LlmcKind* kind_ = nullptr;
  uint64_t num_tokens_ = 0;
  uint64_t done_ = 0;
  std::vector<uint16_t> narrow_;
};

// Writes a file that llm.c reads.
void write_llmc_tokens(const std::string& path, const LlmcKind& kind,
                       std::span<const uint32_t> tokens);

struct LlmcImport {
  std::vector<std::string> train;  // shards, in order
  std::vector<std::string> validation;
  std::string output;
};

// Copies token files of one kind into a store. Documents: when a part begins with the end-of-text
// id, that id begins documents (llm.c's own scripts); otherwise it ends them. The number of text
// bytes is unknown and recorded as 0.
StoreInfo import_llmc(const LlmcImport& import, const Progress& progress = {});

}  // namespace qstep::data
