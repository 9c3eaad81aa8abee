#include "data/llmc_tokens.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

using Tokens = std::vector<uint32_t>;

Tokens read_all(const TokenStore& store, Part part) {
  Tokens tokens(store.num_tokens(part));
  store.read(part, 0, tokens);
  return tokens;
}

std::vector<uint64_t> doc_offsets(const std::string& path, const std::string& group) {
  const Hdf5Dataset dataset = Hdf5File::open(path).open_dataset(group + "/doc_offsets");
  std::vector<uint64_t> offsets(dataset.size());
  dataset.read(0, offsets.size(), offsets.data());
  return offsets;
}

class LlmcKinds : public testing::TestWithParam<LlmcKind> {};
INSTANTIATE_TEST_SUITE_P(Both, LlmcKinds, testing::Values(kLlmcGpt2, kLlmcLlama3),
                         [](const auto& kind) {
                           return std::string(kind.param.token_bytes == 2 ? "Gpt2" : "Llama3");
                         });

TEST_P(LlmcKinds, RoundTrip) {
  const LlmcKind& kind = GetParam();
  const TempDir dir;
  Tokens tokens(200001);  // several blocks of the reader
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = made_up_token(i, kind.vocab_size);
  tokens[0] = 0;  // a document that does not begin with end-of-text
  write_llmc_tokens(dir / "t.bin", kind, tokens);
  EXPECT_EQ(std::filesystem::file_size(dir / "t.bin"), 1024 + tokens.size() * kind.token_bytes);
  const Tokens held_out = {1, 2, 3};
  write_llmc_tokens(dir / "v.bin", kind, held_out);
  const StoreInfo info = import_llmc({{dir / "t.bin"}, {dir / "v.bin"}, dir / "s.h5"});
  EXPECT_EQ(info.vocab_size, kind.vocab_size);
  EXPECT_EQ(info.eos_id, kind.end_of_text);
  const TokenStore store = TokenStore::open(dir / "s.h5");
  store.verify();
  EXPECT_EQ(store.info().tokenizer, kind.tokenizer);
  EXPECT_EQ(store.num_bytes(Part::kTrain), 0u);
  EXPECT_EQ(read_all(store, Part::kTrain), tokens);
  EXPECT_EQ(read_all(store, Part::kValidation), held_out);
  EXPECT_ERROR(store.tokenizer(), "its model is not part of the token store");
}

// The bytes of a small file, written out by hand.
TEST(LlmcTokens, GoldenBytes) {
  const TempDir dir;
  std::string golden(1024, '\0');
  const std::string header = {'\x88', '\xd8', '\x34', '\x01', 1, 0, 0, 0, 3, 0, 0, 0};
  golden.replace(0, header.size(), header);
  golden += std::string("\x50\xc4\x01\x00\xff\x00", 6);
  write_llmc_tokens(dir / "t.bin", kLlmcGpt2, Tokens{50256, 1, 255});
  EXPECT_EQ(read_file(dir / "t.bin"), golden);
  LlmcTokenFile file(dir / "t.bin");
  EXPECT_EQ(file.num_tokens(), 3u);
  Tokens out(10);
  const auto read = file.read_next(out);
  EXPECT_EQ(Tokens(read.begin(), read.end()), (Tokens{50256, 1, 255}));
  EXPECT_TRUE(file.read_next(out).empty());
}

// End-of-text begins documents in files of llm.c's scripts, and ends them in others.
TEST(LlmcTokens, DocumentBorders) {
  const TempDir dir;
  const uint32_t e = kLlmcGpt2.end_of_text;
  write_llmc_tokens(dir / "a.bin", kLlmcGpt2, Tokens{e, 1, 2, e, 3});
  write_llmc_tokens(dir / "b.bin", kLlmcGpt2, Tokens{4, e, e, 5});  // continues document 2
  write_llmc_tokens(dir / "c.bin", kLlmcGpt2, Tokens{1, 2, e, 3, e, 4});
  import_llmc({{dir / "a.bin", dir / "b.bin"}, {dir / "c.bin"}, dir / "s.h5"});
  EXPECT_EQ(doc_offsets(dir / "s.h5", ""), (std::vector<uint64_t>{0, 3, 6, 7, 9}));
  EXPECT_EQ(doc_offsets(dir / "s.h5", "/validation"), (std::vector<uint64_t>{0, 3, 5, 6}));
}

TEST(LlmcTokens, R15_TruncationAtEveryHeaderByteIsRefused) {
  const TempDir dir;
  write_llmc_tokens(dir / "t.bin", kLlmcGpt2, Tokens{1, 2, 3});
  const std::string whole = read_file(dir / "t.bin");
  for (size_t keep = 0; keep < whole.size(); ++keep) {
    write_file(dir / "cut.bin", std::string_view(whole).substr(0, keep));
    EXPECT_THROW(LlmcTokenFile(dir / "cut.bin"), Error) << keep;
  }
  write_file(dir / "cut.bin", whole + "x");
  EXPECT_ERROR(LlmcTokenFile(dir / "cut.bin"), "expected 1030 bytes for 3 tokens, found 1031");
}

TEST(LlmcTokens, R15_WrongHeadersAndTokensAreNamed) {
  const TempDir dir;
  const std::string path = dir / "t.bin";
  write_llmc_tokens(path, kLlmcGpt2, Tokens{1, 2, 3});
  const std::string good = read_file(path);
  const auto with_word = [&](size_t at, int32_t value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + 4 * at, &value, 4);
    write_file(path, bytes);
  };
  with_word(0, 20240326);  // an llm.c model
  EXPECT_ERROR(LlmcTokenFile(path), "offset 0: expected llm.c's magic 20240520 or 20240801");
  with_word(1, 2);
  EXPECT_ERROR(LlmcTokenFile(path), "offset 4: expected version 1, found 2");
  with_word(2, -1);
  EXPECT_ERROR(LlmcTokenFile(path), "offset 8: expected a token count, found -1");
  with_word(2, 4);
  EXPECT_ERROR(LlmcTokenFile(path), "expected 1032 bytes for 4 tokens, found 1030");
  with_word(2, INT32_MAX);
  EXPECT_ERROR(LlmcTokenFile(path), "expected 4294968318 bytes");
  EXPECT_ERROR(LlmcTokenFile(dir / "no.bin"), "No such file");

  std::string bytes = good;
  bytes.replace(1024 + 2, 2, "\x51\xc4");  // 50257 as the second token
  write_file(path, bytes);
  EXPECT_ERROR(import_llmc({{path}, {}, dir / "s.h5"}),
               "offset 1026: expected a token below 50257, found 50257");
  EXPECT_FALSE(std::filesystem::exists(dir / "s.h5"));
}

TEST(LlmcTokens, KindsDoNotMix) {
  const TempDir dir;
  write_llmc_tokens(dir / "a.bin", kLlmcGpt2, Tokens{1});
  write_llmc_tokens(dir / "b.bin", kLlmcLlama3, Tokens{1});
  EXPECT_ERROR(import_llmc({{dir / "a.bin"}, {dir / "b.bin"}, dir / "s.h5"}),
               "expected tokens of llmc-gpt2");
  EXPECT_ERROR(import_llmc({{}, {}, dir / "s.h5"}), "at least one");
}

TEST(LlmcTokens, UnwritablePlace) {
  error_of([] { write_llmc_tokens("/nowhere/t.bin", kLlmcGpt2, Tokens{1}); }, ErrorKind::kDisk);
}

}  // namespace
}  // namespace qstep::data
