#include "data/tokenizer_training.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "data/error.h"
#include "data/utf8.h"

namespace qstep::data {
namespace {

class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return at_ >= sentences_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return sentences_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t at_ = 0;
};

}  // namespace

std::vector<std::string_view> split_sentences(std::string_view text) {
  std::vector<std::string_view> sentences;
  while (!text.empty()) {
    size_t end = text.find('\n');
    end = end == std::string_view::npos ? text.size() : text.find_first_not_of('\n', end);
    end = std::min(end, text.size());
    if (end > kMaxSentenceBytes) end = utf8_cut(text, kMaxSentenceBytes);
    sentences.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return sentences;
}

std::string train_sentencepiece(const std::vector<std::string>& sentences, uint32_t vocab_size) {
  if (sentences.empty()) throw Error("SentencePiece: there is no text to train a tokenizer on");
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab_size)},
      {"hard_vocab_limit", "false"},  // a small corpus has fewer pieces
      {"byte_fallback", "true"},
      {"character_coverage", "0.9995"},  // rarer characters are spelled in bytes
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},  // indentation
      {"split_digits", "true"},
      // The trainer keeps the tab for itself and learns no piece with it.
      {"user_defined_symbols", "\t,\t\t,\t\t\t,\t\t\t\t"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"max_sentence_length", std::to_string(kMaxSentenceBytes)},
      {"num_threads", "4"},  // recorded in the model: a constant, so that its bytes repeat
      {"minloglevel", "2"}};
  Sentences iterator(sentences);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model);
  if (!status.ok()) {
    throw Error(fmt::format(
        "SentencePiece: cannot train a vocabulary of {}: {}; {} ids are reserved and every common "
        "character needs one",
        vocab_size, status.ToString(), kSentencePieceReserved));
  }
  return model;
}

}  // namespace qstep::data
