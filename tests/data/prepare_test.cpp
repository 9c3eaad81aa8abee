#include "data/prepare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/sentence_sample.h"
#include "data/tokenizer_training.h"
#include "tests/data/compress.h"
#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

std::string document(int i) {
  return "document " + std::to_string(i) + " says hello\nand   more of it " +
         std::string(static_cast<size_t>(i % 7), '!') + "\n";
}

// A folder of one .jsonl file with n documents.
std::string write_documents(const TempDir& dir, int n) {
  std::string file;
  for (int i = 0; i < n; ++i) {
    std::string text;
    for (const char c : document(i)) text += c == '\n' ? std::string("\\n") : std::string(1, c);
    file += "{\"text\":\"" + text + "\"}\n";
  }
  write_file(dir / "docs.jsonl", file);
  return dir / "docs.jsonl";
}

std::vector<uint32_t> all_tokens(const TokenStore& store, Part part) {
  std::vector<uint32_t> tokens(store.num_tokens(part));
  store.read(part, 0, tokens);
  return tokens;
}

// The documents of a part as text: cut at eos, which every document must end with.
std::vector<std::string> texts(const TokenStore& store, Part part) {
  const auto tokenizer = store.tokenizer();
  std::vector<std::string> found;
  std::vector<uint32_t> ids;
  for (const uint32_t token : all_tokens(store, part)) {
    if (token == tokenizer->eos_id()) {
      found.push_back(tokenizer->decode(ids));
      ids.clear();
    } else {
      ids.push_back(token);
    }
  }
  EXPECT_TRUE(ids.empty()) << "the last document has no eos";
  EXPECT_EQ(found.size(), store.info().part(part).num_documents);
  return found;
}

std::string joined(const std::vector<std::string>& parts) {
  return std::accumulate(parts.begin(), parts.end(), std::string());
}

class PrepareKinds : public testing::TestWithParam<TokenizerKind> {};
INSTANTIATE_TEST_SUITE_P(All, PrepareKinds,
                         testing::Values(TokenizerKind::kSentencePiece, TokenizerKind::kBytes));

TEST_P(PrepareKinds, EveryDocumentIsInOnePartWithItsText) {
  const TempDir dir;
  constexpr int kDocuments = 3000;
  PrepareOptions options;
  options.inputs = {write_documents(dir, kDocuments)};
  options.output = dir / "s.h5";
  options.tokenizer = GetParam();
  options.vocab_size = 400;
  options.validation_fraction = 0.2;
  const PrepareResult result = prepare(options);
  EXPECT_EQ(result.split, SplitRule::kDocuments);
  EXPECT_EQ(result.n_documents, uint64_t{kDocuments});

  const TokenStore store = TokenStore::open(dir / "s.h5");
  store.verify();
  const auto train = texts(store, Part::kTrain), validation = texts(store, Part::kValidation);
  EXPECT_EQ(train.size() + validation.size(), size_t{kDocuments});
  // Binomial: 600 on average, standard deviation sqrt(3000 0.2 0.8) = 22; 6 of them is 132.
  EXPECT_NEAR(static_cast<double>(validation.size()), 600, 132);
  size_t t = 0, v = 0;
  for (int i = 0; i < kDocuments; ++i) {
    if (t < train.size() && train[t] == document(i)) {
      ++t;
    } else {
      ASSERT_LT(v, validation.size());
      ASSERT_EQ(validation[v++], document(i));
    }
  }
  EXPECT_EQ(store.num_bytes(Part::kTrain), joined(train).size());
  EXPECT_EQ(store.num_bytes(Part::kValidation), joined(validation).size());
  EXPECT_EQ(store.num_bytes(Part::kTrain) + store.num_bytes(Part::kValidation), result.text_bytes);
}

TEST_P(PrepareKinds, OneFileGivesItsTailToValidation) {
  const TempDir dir;
  std::string text;
  while (text.size() < 300000) text += document(static_cast<int>(text.size()));
  write_file(dir / "book.txt.gz", gzip(text));
  PrepareOptions options;
  options.inputs = {dir / "book.txt.gz"};
  options.output = dir / "s.h5";
  options.tokenizer = GetParam();
  options.vocab_size = 400;
  EXPECT_EQ(prepare(options).split, SplitRule::kTail);
  const TokenStore store = TokenStore::open(dir / "s.h5");
  const auto train = texts(store, Part::kTrain), validation = texts(store, Part::kValidation);
  ASSERT_EQ(train.size(), 1u);
  ASSERT_EQ(validation.size(), 1u);
  EXPECT_EQ(train[0] + validation[0], text);
  EXPECT_TRUE(train[0].ends_with("\n"));
  // A tenth of a text below 640 KiB, up to the end of the line.
  EXPECT_NEAR(static_cast<double>(validation[0].size()), text.size() / 10.0, 100);
}

TEST_P(PrepareKinds, SameInputGivesTheSameBytes) {
  const TempDir dir;
  PrepareOptions options;
  options.inputs = {write_documents(dir, 500)};
  options.tokenizer = GetParam();
  options.vocab_size = 350;
  for (const char* name : {"a.h5", "b.h5"}) {
    options.output = dir / name;
    prepare(options);
  }
  EXPECT_EQ(read_file(dir / "a.h5"), read_file(dir / "b.h5"));
}

TEST(Prepare, AnExistingModelCanBeUsed) {
  const TempDir dir;
  const std::string model = train_sentencepiece({document(1), document(2), document(3)}, 300);
  write_file(dir / "my.model", model);
  PrepareOptions options;
  options.inputs = {write_documents(dir, 50)};
  options.output = dir / "s.h5";
  options.tokenizer = TokenizerKind::kModelFile;
  options.model_path = dir / "my.model";
  prepare(options);
  EXPECT_EQ(TokenStore::open(dir / "s.h5").tokenizer()->model(), model);
  write_file(dir / "my.model", "something else");
  EXPECT_ERROR(prepare(options), "cannot be read");
  options.model_path = dir / "no.model";
  EXPECT_ERROR(prepare(options), "no such file");
}

TEST(Prepare, WithoutValidationPart) {
  const TempDir dir;
  PrepareOptions options;
  options.inputs = {write_documents(dir, 50)};
  options.output = dir / "s.h5";
  options.tokenizer = TokenizerKind::kBytes;
  options.validation_fraction = 0;
  EXPECT_EQ(prepare(options).split, SplitRule::kNone);
  const TokenStore store = TokenStore::open(dir / "s.h5");
  EXPECT_EQ(store.num_tokens(Part::kValidation), 0u);
  EXPECT_EQ(store.info().part(Part::kTrain).num_documents, 50u);
}

TEST(Prepare, TinyTexts) {
  const TempDir dir;
  for (const std::string text : {"a", "ab", "\n\n\n", "日本", "hello\nworld\n"}) {
    write_file(dir / "t.txt", text);
    PrepareOptions options;
    options.inputs = {dir / "t.txt"};
    options.output = dir / "s.h5";
    options.tokenizer = TokenizerKind::kBytes;
    prepare(options);
    const TokenStore store = TokenStore::open(dir / "s.h5");
    store.verify();
    EXPECT_EQ(joined(texts(store, Part::kTrain)) + joined(texts(store, Part::kValidation)), text);
  }
}

TEST(Prepare, ImpossibleRequestsAreRefusedAndLeaveNothing) {
  const TempDir dir;
  PrepareOptions options;
  options.output = dir / "s.h5";
  EXPECT_ERROR(prepare(options), "at least one input");
  options.inputs = {dir / "no.txt"};
  EXPECT_ERROR(prepare(options), "no such file");
  write_file(dir / "empty.txt", "");
  options.inputs = {dir / "empty.txt"};
  EXPECT_ERROR(prepare(options), "expected text, found none in 1 file(s)");
  options.validation_fraction = 0.7;
  EXPECT_ERROR(prepare(options), "0 to 0.5");
  options.validation_fraction = 0.1;
  options.vocab_size = 100;
  EXPECT_ERROR(prepare(options), "more than 262");
  write_file(dir / "bad.jsonl", "{\"text\": \"fine\"}\nbroken\n");
  options.inputs = {dir / "bad.jsonl"};
  options.tokenizer = TokenizerKind::kBytes;
  EXPECT_ERROR(prepare(options), "bad.jsonl, line 2");
  EXPECT_FALSE(std::filesystem::exists(dir / "s.h5"));
  options.inputs = {write_documents(dir, 5)};
  options.output = dir / "no/such/folder/s.h5";
  const std::string text = error_of([&] { prepare(options); }, ErrorKind::kDisk);
  EXPECT_NE(text.find("No such file or directory"), std::string::npos) << text;
}

TEST(Prepare, StoppingFromTheProgressCallbackKeepsTheOldStore) {
  const TempDir dir;
  PrepareOptions options;
  options.inputs = {write_documents(dir, 50)};
  options.output = dir / "s.h5";
  options.tokenizer = TokenizerKind::kBytes;
  prepare(options);
  const std::string before = read_file(dir / "s.h5");
  options.inputs = {write_documents(dir, 60)};
  struct Stop {};
  EXPECT_THROW(prepare(options,
                       [](PreparePhase phase, uint64_t, uint64_t) {
                         if (phase == PreparePhase::kEncode) throw Stop{};
                       }),
               Stop);
  EXPECT_EQ(read_file(dir / "s.h5"), before);
  size_t n_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.str())) {
    n_files += entry.is_regular_file();
  }
  EXPECT_EQ(n_files, 2u) << "a temporary file is left";
}

TEST(Prepare, ProgressCoversBothPasses) {
  const TempDir dir;
  PrepareOptions options;
  options.inputs = {write_documents(dir, 500)};
  options.output = dir / "s.h5";
  options.vocab_size = 350;
  std::vector<PreparePhase> phases;
  uint64_t last_done = 0, last_total = 0;
  prepare(options, [&](PreparePhase phase, uint64_t done, uint64_t total) {
    if (phases.empty() || phases.back() != phase) phases.push_back(phase);
    last_done = done;
    last_total = total;
  });
  EXPECT_EQ(phases, (std::vector<PreparePhase>{PreparePhase::kScan, PreparePhase::kTrainTokenizer,
                                               PreparePhase::kEncode}));
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(last_total, std::filesystem::file_size(options.inputs[0]));
}

TEST(SentenceSample, IsBoundedEvenAndOrdered) {
  constexpr uint64_t kMaxBytes = 20000;
  SentenceSample sample(kMaxBytes, 3);
  for (int i = 100000; i < 200000; ++i) sample.offer(std::to_string(i));
  const std::vector<std::string> kept = sample.take();
  // Halving keeps between half of the limit and all of it; 10 % off for chance.
  EXPECT_LE(kept.size() * 6, kMaxBytes);
  EXPECT_GE(kept.size() * 6, kMaxBytes * 4 / 10);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  // Even: half of them from each half, within 6 standard deviations of a binomial (n > 1300).
  const auto middle = std::lower_bound(kept.begin(), kept.end(), "150000") - kept.begin();
  EXPECT_NEAR(static_cast<double>(middle), kept.size() / 2.0, 6 * std::sqrt(kept.size()) / 2);
  SentenceSample everything(1 << 20, 3);
  everything.offer("one");
  everything.offer("two");
  EXPECT_EQ(everything.take(), (std::vector<std::string>{"one", "two"}));
}

}  // namespace
}  // namespace qstep::data
