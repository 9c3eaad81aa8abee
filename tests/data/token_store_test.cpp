#include "data/token_store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

std::vector<uint32_t> read_all(const TokenStore& store, Part part) {
  std::vector<uint32_t> tokens(store.num_tokens(part));
  store.read(part, 0, tokens);
  return tokens;
}

class TokenStoreWidths : public testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(U16AndU32, TokenStoreWidths, testing::Values(257, 65536, 65537, 128256));

TEST_P(TokenStoreWidths, RoundTrip) {
  const TempDir dir;
  const uint32_t vocab_size = GetParam();
  const MadeUpStore made{.vocab_size = vocab_size,
                         .train_tokens = 3 * kChunkTokens + 17,
                         .validation_tokens = 1001,
                         .document_tokens = 5};
  const StoreInfo written = write_made_up_store(dir / "s.h5", made);
  const TokenStore store = TokenStore::open(dir / "s.h5");
  EXPECT_EQ(store.info().token_type, vocab_size <= 65536 ? Hdf5Type::kU16 : Hdf5Type::kU32);
  EXPECT_EQ(store.info().vocab_size, vocab_size);
  EXPECT_EQ(store.info().source, "made up");
  for (const Part part : kParts) {
    EXPECT_EQ(store.info().part(part).content_hash, written.part(part).content_hash);
    EXPECT_EQ(store.info().part(part).num_documents, (store.num_tokens(part) + 4) / 5);
    EXPECT_EQ(store.num_bytes(part), store.num_tokens(part));
    const std::vector<uint32_t> tokens = read_all(store, part);
    for (uint64_t i = 0; i < tokens.size(); ++i) {
      ASSERT_EQ(tokens[i], made_up_token(i, vocab_size)) << i;
    }
  }
  // Ranges across chunk borders, an empty one, and the very end.
  for (const uint64_t first : {kChunkTokens - 3, 2 * kChunkTokens, made.train_tokens - 10}) {
    std::vector<uint32_t> window(10);
    store.read(Part::kTrain, first, window);
    EXPECT_EQ(window[9], made_up_token(first + 9, vocab_size));
  }
  store.read(Part::kTrain, made.train_tokens, {});
  store.verify();
}

TEST(TokenStore, ReadsOutsideAreRefused) {
  const TempDir dir;
  write_made_up_store(dir / "s.h5", {});
  const TokenStore store = TokenStore::open(dir / "s.h5");
  std::vector<uint32_t> out(2);
  EXPECT_ERROR(store.read(Part::kTrain, 9999, out), "train tokens 9999 to 10001");
  EXPECT_ERROR(store.read(Part::kTrain, ~uint64_t{0}, out), "there are 10000");
}

TEST(TokenStore, SameContentGivesTheSameFile) {
  const TempDir dir;
  write_made_up_store(dir / "a.h5", {});
  write_made_up_store(dir / "b.h5", {});
  EXPECT_EQ(read_file(dir / "a.h5"), read_file(dir / "b.h5"));
}

TEST(TokenStore, EmptyPartsAndUnfinishedDocuments) {
  const TempDir dir;
  {
    TokenStoreWriter writer(dir / "s.h5", {"bytes", "", 257, 256, ""});
    writer.end_document(Part::kTrain);  // nothing in it: no document
    writer.append(Part::kTrain, std::vector<uint32_t>{1, 2, 3}, 3);
    writer.finish();  // closes the document
  }
  const TokenStore store = TokenStore::open(dir / "s.h5");
  EXPECT_EQ(store.info().part(Part::kTrain).num_documents, 1u);
  EXPECT_EQ(store.num_tokens(Part::kValidation), 0u);
  EXPECT_EQ(store.info().source, "");
  store.verify();
  EXPECT_EQ(store.tokenizer()->name(), "bytes");
}

TEST(TokenStore, AnUnfinishedWriterLeavesNothing) {
  const TempDir dir;
  {
    TokenStoreWriter writer(dir / "s.h5", {"bytes", "", 257, 256, ""});
    writer.append(Part::kTrain, std::vector<uint32_t>{1, 2, 3}, 3);
    EXPECT_FALSE(std::filesystem::exists(dir / "s.h5"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.str()));
}

TEST(TokenStore, WriterRefusesTokensOutsideTheVocabulary) {
  const TempDir dir;
  TokenStoreWriter writer(dir / "s.h5", {"bytes", "", 257, 256, ""});
  EXPECT_ERROR(writer.append(Part::kTrain, std::vector<uint32_t>{1, 257}, 2),
               "train token 1: expected an id below vocab_size 257, found 257");
}

TEST(TokenStore, WriterNamesAnUnwritablePlace) {
  const std::string text = error_of(
      [] {
        TokenStoreWriter("/nowhere/at/all.h5", {"bytes", "", 257, 256, ""});
      },
      ErrorKind::kDisk);
  EXPECT_NE(text.find("cannot create the file"), std::string::npos) << text;
}

// A disk that fills up, played by the limit on the size of files.
TEST(TokenStore, FullDiskIsReportedAndLeavesNothing) {
  const TempDir dir;
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string text = error_of(
      [&] { write_made_up_store(dir / "s.h5", {.train_tokens = 1 << 20}); }, ErrorKind::kDisk);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_NE(text.find("larger than the file system"), std::string::npos) << text;
  EXPECT_TRUE(std::filesystem::is_empty(dir.str()));
  write_made_up_store(dir / "s.h5", {});  // and the library is still usable
  TokenStore::open(dir / "s.h5").verify();
}

// ---- damaged and foreign files --------------------------------------------------------

TEST(TokenStore, R15_UnusableFilesAreRefused) {
  const TempDir dir;
  EXPECT_ERROR(TokenStore::open(dir / "no.h5"), "No such file");
  EXPECT_ERROR(TokenStore::open(dir.str()), "not a file");
  write_file(dir / "empty.h5", "");
  EXPECT_ERROR(TokenStore::open(dir / "empty.h5"), "found an empty file");
  write_file(dir / "text.h5", std::string(5000, 'x'));
  EXPECT_ERROR(TokenStore::open(dir / "text.h5"), "cannot open as an HDF5 file");
  {
    Hdf5File foreign = Hdf5File::create(dir / "foreign.h5");
    const uint32_t one = 1;
    foreign.write_dataset("/weights", Hdf5Type::kU32, 1, &one);
    foreign.close();
  }
  EXPECT_ERROR(TokenStore::open(dir / "foreign.h5"), "not a token store");
}

TEST(TokenStore, R15_TruncationAtManyPlacesIsFound) {
  const TempDir dir;
  write_made_up_store(dir / "s.h5", {.train_tokens = 200000});
  const std::string whole = read_file(dir / "s.h5");
  for (size_t keep = 0; keep < whole.size(); keep += whole.size() / 40 + 1) {
    write_file(dir / "t.h5", std::string_view(whole).substr(0, keep));
    EXPECT_THROW(TokenStore::open(dir / "t.h5"), Error) << keep;
  }
  write_file(dir / "t.h5", std::string_view(whole).substr(0, whole.size() - 1));
  EXPECT_THROW(TokenStore::open(dir / "t.h5"), Error);
}

// One flipped bit inside the tokens: found by Fletcher32 when that chunk is read, and by verify.
TEST(TokenStore, R15_FlippedBitIsFoundOnRead) {
  const TempDir dir;
  write_made_up_store(dir / "s.h5", {.train_tokens = 200000});
  std::string bytes = read_file(dir / "s.h5");
  // Token 70000 and its neighbours as stored: u16, little-endian.
  std::string pattern;
  for (uint64_t i = 70000; i < 70008; ++i) {
    const uint32_t token = made_up_token(i, 257);
    pattern += static_cast<char>(token & 255);
    pattern += static_cast<char>(token >> 8);
  }
  const size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  write_file(dir / "flipped.h5", bytes);
  const TokenStore store = TokenStore::open(dir / "flipped.h5");
  std::vector<uint32_t> out(100);
  store.read(Part::kTrain, 0, out);  // the first chunk is intact
  EXPECT_ERROR(store.read(Part::kTrain, 70000, out), "dataset /tokens: cannot read elements 70000");
  EXPECT_ERROR(store.read(Part::kTrain, 70000, out), "Fletcher32");
  EXPECT_ERROR(store.verify(), "Fletcher32");
}

// ---- stores written by other tools, possibly wrong ------------------------------------

// A store written with the plain HDF5 functions, every part of which a test can change.
struct ForeignStore {
  uint64_t format_version = 1, vocab_size = 257, eos_id = 256, num_tokens = 6;
  std::vector<uint16_t> tokens = {1, 2, 256, 3, 4, 256};
  std::vector<uint64_t> doc_offsets = {0, 3, 6};
  std::string tokenizer = "bytes";
  std::string sha256 = tokenizer_sha256("bytes", "");
  std::string content_hash = std::string(32, '0');
  Hdf5Layout layout;  // contiguous

  void write(const std::string& path) const {
    Hdf5File file = Hdf5File::create(path);
    file.write_attribute("/", "format_version", format_version);
    file.write_attribute("/", "tokenizer", tokenizer);
    file.write_attribute("/", "tokenizer_sha256", sha256);
    file.write_attribute("/", "vocab_size", vocab_size);
    file.write_attribute("/", "eos_id", eos_id);
    file.write_attribute("/", "num_tokens", num_tokens);
    file.write_attribute("/", "content_hash", content_hash);
    file.write_attribute("/", "source", "a foreign tool");
    file.write_dataset("/tokens", Hdf5Type::kU16, tokens.size(), tokens.data(), layout);
    file.write_dataset("/doc_offsets", Hdf5Type::kU64, doc_offsets.size(), doc_offsets.data());
    file.close();
  }
};

TEST(TokenStore, AcceptsContiguousStorageWithoutValidationPart) {
  const TempDir dir;
  ForeignStore foreign;
  foreign.write(dir / "s.h5");
  const TokenStore store = TokenStore::open(dir / "s.h5");
  EXPECT_EQ(read_all(store, Part::kTrain), (std::vector<uint32_t>{1, 2, 256, 3, 4, 256}));
  EXPECT_EQ(store.num_tokens(Part::kValidation), 0u);
  EXPECT_EQ(store.num_bytes(Part::kTrain), 0u);
  std::vector<uint32_t> one(1);
  EXPECT_ERROR(store.read(Part::kValidation, 0, one), "there are 0");
  EXPECT_ERROR(store.verify(), "expected content_hash 00000000000000000000000000000000, found ");
}

// XXH3-128 of the stored bytes of the store above, computed with `xxhsum -H2`.
TEST(TokenStore, ContentHashIsXxh3OfTokensThenOffsets) {
  const TempDir dir;
  ForeignStore foreign;
  foreign.content_hash = "cfde2d7e2dc7b8591a420316bc731a8d";
  foreign.write(dir / "s.h5");
  TokenStore::open(dir / "s.h5").verify();
}

TEST(TokenStore, R15_ContradictionsAreRefused) {
  const TempDir dir;
  const std::string path = dir / "s.h5";
  const auto expect = [&](const auto& change, const std::string& text) {
    ForeignStore foreign;
    change(foreign);
    foreign.write(path);
    EXPECT_ERROR(TokenStore::open(path), text);
  };
  expect([](auto& s) { s.format_version = 2; }, "expected format_version 1, found 2");
  expect([](auto& s) { s.vocab_size = 0; }, "expected vocab_size of 1");
  expect([](auto& s) { s.vocab_size = uint64_t{1} << 40; }, "expected vocab_size of 1");
  expect([](auto& s) { s.vocab_size = 65537; }, "expected u32 for vocab_size 65537, found u16");
  expect([](auto& s) { s.eos_id = 257; }, "expected eos_id below vocab_size 257, found 257");
  expect([](auto& s) { s.num_tokens = 7; }, "expected num_tokens = 7 elements, found 6");
  expect([](auto& s) { s.num_tokens = ~uint64_t{0}; }, "found 6");
  expect([](auto& s) { s.doc_offsets = {0, 3, 5}; }, "expected first 0 and last 6, found 0 and 5");
  expect([](auto& s) { s.doc_offsets = {1, 3, 6}; }, "found 1 and 6");
  expect([](auto& s) { s.doc_offsets = {}; }, "at least one element");
  expect([](auto& s) { s.sha256 = "abc"; }, "expected tokenizer_sha256 of 64 hex digits");
  expect([](auto& s) { s.content_hash = "xyz"; }, "expected content_hash of 32 hex digits");
}

TEST(TokenStore, R15_MissingAndMistypedObjectsAreNamed) {
  const TempDir dir;
  const std::string path = dir / "s.h5";
  for (const std::string missing : {"tokenizer", "tokenizer_sha256", "vocab_size", "eos_id",
                                    "num_tokens", "content_hash", "source"}) {
    Hdf5File file = Hdf5File::create(path);
    for (const std::string name : {"format_version", "vocab_size", "eos_id", "num_tokens"}) {
      if (name != missing) {
        file.write_attribute("/", name,
                             uint64_t{name == "vocab_size" ? 2u : name == "format_version"});
      }
    }
    for (const std::string name : {"tokenizer", "tokenizer_sha256", "content_hash", "source"}) {
      if (name != missing) {
        file.write_attribute("/", name, std::string(name == "content_hash" ? 32 : 64, '0'));
      }
    }
    const uint16_t none = 0;
    const uint64_t zero = 0;
    file.write_dataset("/tokens", Hdf5Type::kU16, 0, &none);
    file.write_dataset("/doc_offsets", Hdf5Type::kU64, 1, &zero);
    file.close();
    EXPECT_ERROR(TokenStore::open(path), "attribute " + missing + " of / is missing");
  }

  const float weight = 1;
  Hdf5File file = Hdf5File::create(path);
  file.write_attribute("/", "format_version", "one");
  file.write_dataset("/tokens", Hdf5Type::kF32, 1, &weight);
  file.close();
  EXPECT_ERROR(TokenStore::open(path), "attribute format_version of /: expected an integer");
}

TEST(TokenStore, R15_TokenOutsideTheVocabularyIsNamedOnRead) {
  const TempDir dir;
  ForeignStore foreign;
  foreign.tokens[4] = 257;
  foreign.write(dir / "s.h5");
  const TokenStore store = TokenStore::open(dir / "s.h5");
  std::vector<uint32_t> out(4);
  store.read(Part::kTrain, 0, out);
  EXPECT_ERROR(store.read(Part::kTrain, 1, out),
               "dataset /tokens, offset 4: expected a token below vocab_size 257, found 257");
  EXPECT_ERROR(store.verify(), "offset 4");
}

TEST(TokenStore, VerifyFindsOffsetsThatGoBack) {
  const TempDir dir;
  ForeignStore foreign;
  foreign.doc_offsets = {0, 5, 3, 6};
  foreign.write(dir / "s.h5");
  EXPECT_ERROR(TokenStore::open(dir / "s.h5").verify(), "element 2: expected at least 5, found 3");
}

TEST(TokenStore, TokenizerMustMatch) {
  const TempDir dir;
  ForeignStore foreign;
  foreign.sha256 = std::string(64, 'a');
  foreign.write(dir / "s.h5");
  EXPECT_ERROR(TokenStore::open(dir / "s.h5").tokenizer(), "tokenizer: expected SHA-256 aaaa");
  foreign = {};
  foreign.vocab_size = 300;
  foreign.write(dir / "s.h5");
  EXPECT_ERROR(TokenStore::open(dir / "s.h5").tokenizer(),
               "expected vocab_size 300 and eos_id 256");
  foreign = {};
  foreign.tokenizer = "word-level";
  foreign.sha256 = tokenizer_sha256("word-level", "");
  foreign.write(dir / "s.h5");
  EXPECT_ERROR(TokenStore::open(dir / "s.h5").tokenizer(), "tokenizer \"word-level\"");
}

// ---- memory ---------------------------------------------------------------------------

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * int64_t{1024};
}

// 32 M tokens are 64 MiB on disk; reading all of them must not keep them. Allowed: the chunk cache
// (2 MiB), the blocks in flight, and the allocator's slack.
TEST(TokenStore, ReadingALargeStoreTakesConstantMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  // The sanitizers keep freed blocks (256 MiB of them by default) and shadow memory.
  constexpr int64_t kAllowedGrowthBytes = int64_t{264} << 20;
#else
  constexpr int64_t kAllowedGrowthBytes = int64_t{8} << 20;
#endif
  const TempDir dir;
  constexpr uint64_t kTokens = uint64_t{32} << 20;
  {
    TokenStoreWriter writer(dir / "big.h5", {"bytes", "", 257, 256, ""});
    std::vector<uint32_t> block(kChunkTokens);
    for (uint64_t i = 0; i < block.size(); ++i) block[i] = made_up_token(i, 257);
    for (uint64_t n = 0; n < kTokens; n += block.size()) {
      writer.append(Part::kTrain, block, block.size());
    }
    writer.finish();
  }
  const TokenStore store = TokenStore::open(dir / "big.h5");
  std::vector<uint32_t> window(4097);
  store.read(Part::kTrain, 0, window);
  const int64_t before = peak_rss_bytes();
  for (uint64_t first = 0; first + window.size() <= kTokens; first += 3 * window.size()) {
    store.read(Part::kTrain, first, window);
  }
  store.verify();
  EXPECT_LT(peak_rss_bytes() - before, kAllowedGrowthBytes);
}

}  // namespace
}  // namespace qstep::data
