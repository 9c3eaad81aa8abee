// Small helpers of the data tests: a folder that removes itself, whole files, made-up stores.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "data/permutation.h"
#include "data/token_store.h"

namespace qstep::data {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qstep-data-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string str() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, std::string_view content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_file(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

// Text of the data::Error that `call` throws; fails the test when it throws none.
inline std::string error_of(const std::function<void()>& call, ErrorKind kind = ErrorKind::kData) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

#define EXPECT_ERROR(call, text)                                       \
  do {                                                                 \
    const std::string error_text = error_of([&] { (void)(call); });    \
    EXPECT_NE(error_text.find(text), std::string::npos) << error_text; \
  } while (false)

// Token i of the made-up stores: any fixed function that visits the whole vocabulary.
inline uint32_t made_up_token(uint64_t i, uint32_t vocab_size) {
  return static_cast<uint32_t>(mix64(i) % vocab_size);
}

struct MadeUpStore {
  uint32_t vocab_size = 257;
  uint64_t train_tokens = 10000;
  uint64_t validation_tokens = 1000;
  uint64_t document_tokens = 300;
};

inline StoreInfo write_made_up_store(const std::string& path, const MadeUpStore& s) {
  const bool bytes = s.vocab_size == 257;
  TokenStoreWriter writer(path, {.tokenizer = bytes ? "bytes" : "made-up",
                                 .model = "",
                                 .vocab_size = s.vocab_size,
                                 .eos_id = s.vocab_size - 1,
                                 .source = "made up"});
  for (const Part part : kParts) {
    const uint64_t n = part == Part::kTrain ? s.train_tokens : s.validation_tokens;
    std::vector<uint32_t> document;
    for (uint64_t i = 0; i < n; ++i) {
      document.push_back(made_up_token(i, s.vocab_size));
      if (document.size() == s.document_tokens || i + 1 == n) {
        writer.append(part, document, document.size());
        writer.end_document(part);
        document.clear();
      }
    }
  }
  return writer.finish();
}

}  // namespace qstep::data
