#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <map>

#include "data/permutation.h"
#include "data/sha256.h"
#include "data/tokenizer_training.h"
#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

// A little program text with everything that tokenizers like to lose.
std::string sample_text() {
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += "int value_" + std::to_string(i * 7) + " = compute(value, " + std::to_string(i) +
            ");\n    if (value > limit) {\n\t\treturn value;   // too large\n    }\n\n";
    text += "The quick brown fox jumps over the lazy dog, and then über die Straße.\r\n";
  }
  return text;
}

std::vector<std::string> sentences_of(const std::string& text) {
  std::vector<std::string> sentences;
  for (const std::string_view s : split_sentences(text)) sentences.emplace_back(s);
  return sentences;
}

const Tokenizer& trained() {
  static const auto tokenizer =
      make_sentencepiece_tokenizer(train_sentencepiece(sentences_of(sample_text()), 512));
  return *tokenizer;
}

std::vector<std::string> hard_texts() {
  std::string all_bytes, invalid;
  for (int b = 0; b < 256; ++b) all_bytes += static_cast<char>(b);
  for (uint64_t i = 0; i < 5000; ++i) invalid += static_cast<char>(mix64(i));
  return {"",
          " ",
          "\n",
          "a",
          "  two  spaces   three ",
          "      indentation\n\n\n   and\ttabs\t\t\t\t\t\tmany\n",
          "line\r\nline\r\n\r\nline\rline",
          sample_text(),
          "naïve café — “quotes” … 日本語テキスト Привет мир عربى",
          "👩‍👩‍👧‍👦 🇩🇪 e\u0301 \u00a0 \u200b \ufeff ﬁ ①",
          "\u2581 literal lower block \u2581\u2581 and \u2047",
          "</s> <unk> <s> <0x0A> ▁",
          std::string("zero \0 byte", 11),
          "\xff\xfe broken \xe2\x96 cut \xc0\xaf overlong \xed\xa0\x80 surrogate \xf5\x80\x80\x80",
          "truncated at the end \xe6\x97",
          all_bytes,
          invalid,
          std::string(5000, ' ') + std::string(5000, 'x') + std::string(5000, '\n')};
}

TEST(ByteTokenizer, IsTheIdentityOnBytes) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(tokenizer->name(), "bytes");
  EXPECT_EQ(tokenizer->vocab_size(), 257u);
  EXPECT_EQ(tokenizer->eos_id(), 256u);
  EXPECT_EQ(tokenizer->sha256(), sha256_hex("bytes"));
  EXPECT_EQ(tokenizer->encode("A\xff\n"), (std::vector<uint32_t>{65, 255, 10}));
  for (const std::string& text : hard_texts()) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  EXPECT_EQ(tokenizer->decode(std::vector<uint32_t>{65, 256, 66}), "AB");
  EXPECT_ERROR(tokenizer->decode(std::vector<uint32_t>{257}), "token 257 is outside");
}

TEST(SentencePiece, RoundTripIsByteExact) {
  for (const std::string& text : hard_texts()) {
    const std::vector<uint32_t> ids = trained().encode(text);
    for (const uint32_t id : ids) {
      ASSERT_LT(id, trained().vocab_size());
      ASSERT_NE(id, trained().eos_id()) << text;
    }
    EXPECT_EQ(trained().decode(ids), text);
  }
}

TEST(SentencePiece, CompressesWhatItWasTrainedOn) {
  const std::string text = sample_text();
  // 512 - 262 pieces for a text of two dozen different words: words become single tokens.
  EXPECT_LT(trained().encode(text).size(), text.size() / 3);
  EXPECT_EQ(trained().encode(" value").size(), 1u);
}

TEST(SentencePiece, TrainingIsDeterministic) {
  const auto sentences = sentences_of(sample_text());
  const std::string a = train_sentencepiece(sentences, 400),
                    b = train_sentencepiece(sentences, 400);
  EXPECT_EQ(a, b);
  const auto tokenizer = make_sentencepiece_tokenizer(a);
  EXPECT_EQ(tokenizer->vocab_size(), 400u);
  EXPECT_EQ(tokenizer->model(), a);
  EXPECT_EQ(tokenizer->sha256(), sha256_hex(a));
  EXPECT_EQ(tokenizer->name(), "sentencepiece");
}

// Word by word (with the cache of words) or in one go, cold or warm: the same tokens.
TEST(SentencePiece, TokensDoNotDependOnWhatWasEncodedBefore) {
  const std::string model = trained().model();
  const auto warm = make_sentencepiece_tokenizer(model);
  for (int round = 0; round < 2; ++round) {
    for (const std::string& text : hard_texts()) {
      const auto cold = make_sentencepiece_tokenizer(model);
      EXPECT_EQ(warm->encode(text), cold->encode(text));
    }
  }
}

TEST(SentencePiece, CuttingAtLineEndsDoesNotChangeTheTokens) {
  const std::string text = sample_text();
  std::vector<uint32_t> pieces;
  for (const std::string_view line : split_sentences(text)) {
    const auto ids = trained().encode(line);
    pieces.insert(pieces.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(pieces, trained().encode(text));
}

TEST(SentencePiece, ASmallTextGivesASmallerVocabulary) {
  const auto tokenizer =
      make_sentencepiece_tokenizer(train_sentencepiece({"hello hello\n", "world\n"}, 8192));
  EXPECT_LT(tokenizer->vocab_size(), 300u);
  EXPECT_GE(tokenizer->vocab_size(), kSentencePieceReserved);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("hello, new world")), "hello, new world");
}

TEST(SentencePiece, ImpossibleVocabulariesAreRefused) {
  EXPECT_ERROR(train_sentencepiece(sentences_of(sample_text()), 270), "vocabulary of 270");
  EXPECT_ERROR(train_sentencepiece({}, 512), "no text to train");
}

TEST(SentencePiece, UnusableModelsAreRefused) {
  EXPECT_ERROR(make_sentencepiece_tokenizer(""), "SentencePiece");
  EXPECT_ERROR(make_sentencepiece_tokenizer("not a model"), "cannot be read");
  const std::string& model = trained().model();
  EXPECT_ERROR(make_sentencepiece_tokenizer(model.substr(0, model.size() / 2)), "SentencePiece");
  EXPECT_ERROR(trained().decode(std::vector<uint32_t>{100000}), "token 100000 is outside");
}

TEST(MakeTokenizer, ByNameAndModel) {
  EXPECT_EQ(make_tokenizer("bytes", "")->name(), "bytes");
  EXPECT_EQ(make_tokenizer("sentencepiece", trained().model())->sha256(), trained().sha256());
  EXPECT_ERROR(make_tokenizer("llmc-gpt2", ""), "\"llmc-gpt2\": its model is not part of");
}

TEST(SplitSentences, CoversTheTextInLines) {
  const std::string long_line(3 * kMaxSentenceBytes + 5, 'x');
  std::string wide;
  while (wide.size() < 2 * kMaxSentenceBytes) wide += "日";
  const std::string text = "a\n\n\nb\r\n" + long_line + "\n\n" + wide + "end";
  std::string joined;
  for (const std::string_view sentence : split_sentences(text)) {
    EXPECT_LE(sentence.size(), kMaxSentenceBytes);
    EXPECT_FALSE(sentence.empty());
    EXPECT_NE(static_cast<unsigned char>(sentence[0]) & 0xc0, 0x80) << "cut inside a character";
    joined += sentence;
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(split_sentences("a\n\n\nb")[0], "a\n\n\n");
}

}  // namespace
}  // namespace qstep::data
