#include "data/prepare.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "data/parallel_encoder.h"
#include "data/permutation.h"
#include "data/sentence_sample.h"
#include "data/tokenizer_training.h"
#include "data/utf8.h"

namespace qstep::data {
namespace {

constexpr uint64_t kMinValidationBytes = uint64_t{64} << 10;
constexpr uint64_t kMaxModelFileBytes = uint64_t{256} << 20;

void check(const PrepareOptions& options) {
  const auto require = [](bool condition, const std::string& text) {
    if (!condition) throw Error(text);
  };
  require(!options.inputs.empty(), "prepare: expected at least one input file or folder");
  require(!options.output.empty(), "prepare: expected an output file");
  require(options.validation_fraction >= 0 && options.validation_fraction <= 0.5,
          fmt::format("prepare: expected a validation fraction of 0 to 0.5, found {}",
                      options.validation_fraction));
  require(options.tokenizer != TokenizerKind::kSentencePiece ||
              options.vocab_size > kSentencePieceReserved,
          fmt::format("prepare: expected a vocabulary of more than {} (the reserved ids), found {}",
                      kSentencePieceReserved, options.vocab_size));
}

// The first pass: reads everything once, so that damaged input is found before anything is written.
struct Scan {
  uint64_t n_documents = 0;
  uint64_t text_bytes = 0;
  std::vector<std::string> sample;  // sentences to train a tokenizer on
};

class Passes {
 public:
  Passes(const PrepareOptions& options, const PrepareProgress& progress)
      : options_(options),
        progress_(progress),
        inputs_(list_inputs(options.inputs, options.globs)) {
    for (const TextInput& input : inputs_) file_bytes_ += input.file_bytes;
  }

  size_t n_files() const { return inputs_.size(); }

  template <class Use>
  void for_each_piece(PreparePhase phase, Use use) const {
    TextSource source(inputs_, options_.field);
    for (TextPiece piece; source.next(piece);) {
      use(piece);
      report(phase, source.file_bytes_done(), file_bytes_);
    }
  }

  void report(PreparePhase phase, uint64_t done, uint64_t total) const {
    if (progress_) progress_(phase, done, total);
  }

  Scan scan() const {
    Scan scan;
    SentenceSample sample(options_.train_tokenizer_max_bytes, options_.seed);
    for_each_piece(PreparePhase::kScan, [&](const TextPiece& piece) {
      scan.text_bytes += piece.text.size();
      scan.n_documents += piece.ends_document;
      if (options_.tokenizer != TokenizerKind::kSentencePiece) return;
      for (const std::string_view sentence : split_sentences(piece.text)) sample.offer(sentence);
    });
    if (scan.n_documents == 0) {
      throw Error(fmt::format("{}: expected text, found none in {} file(s)",
                              fmt::join(options_.inputs, " "), inputs_.size()));
    }
    scan.sample = sample.take();
    return scan;
  }

  std::unique_ptr<Tokenizer> make_tokenizer(std::vector<std::string> sample) const {
    switch (options_.tokenizer) {
      case TokenizerKind::kBytes:
        return make_byte_tokenizer();
      case TokenizerKind::kModelFile:
        return make_sentencepiece_tokenizer(read_model());
      case TokenizerKind::kSentencePiece:
        break;
    }
    report(PreparePhase::kTrainTokenizer, 0, 0);
    return make_sentencepiece_tokenizer(train_sentencepiece(sample, options_.vocab_size));
  }

 private:
  std::string read_model() const {
    const uint64_t bytes = list_inputs({options_.model_path}, {}).at(0).file_bytes;
    if (bytes > kMaxModelFileBytes) {
      throw Error(fmt::format("{}: expected a SentencePiece model of at most {} bytes, found {}",
                              options_.model_path, kMaxModelFileBytes, bytes));
    }
    std::string model(bytes, '\0');
    const auto stream = open_byte_stream(options_.model_path);
    for (size_t at = 0; at < model.size();) {
      const size_t got = stream->read(model.data() + at, model.size() - at);
      if (got == 0) throw Error(options_.model_path + ": it became shorter while it was read");
      at += got;
    }
    return model;
  }

  const PrepareOptions& options_;
  const PrepareProgress& progress_;
  const std::vector<TextInput> inputs_;
  uint64_t file_bytes_ = 0;
};

// Which bytes of the text are held out.
class Split {
 public:
  Split(const PrepareOptions& options, const Scan& scan) {
    if (options.validation_fraction == 0) return;
    const auto total = static_cast<double>(scan.text_bytes);
    const double least = std::min<double>(kMinValidationBytes, total / 10);
    const double fraction = std::max(options.validation_fraction, least / total);
    if (fraction * static_cast<double>(scan.n_documents) >= kMinSplitDocuments) {
      rule_ = SplitRule::kDocuments;
      key_ = mix64(mix64(options.seed) + 1);  // another stream than the tokenizer's sample
      threshold_ = static_cast<uint64_t>(fraction * 0x1p64);
    } else {
      rule_ = SplitRule::kTail;
      train_bytes_ = static_cast<uint64_t>(total * (1 - fraction));
    }
  }

  SplitRule rule() const { return rule_; }

  // How many leading bytes of a piece, which starts at byte `at` of the text, are for training.
  size_t train_bytes(const TextPiece& piece, uint64_t at) const {
    const size_t size = piece.text.size();
    if (rule_ == SplitRule::kNone) return size;
    if (rule_ == SplitRule::kDocuments) {
      return mix64(key_ ^ piece.document) < threshold_ ? 0 : size;
    }
    if (at >= train_bytes_) return 0;
    if (train_bytes_ - at >= size) return size;
    // The border is inside: after the line, or between two characters of the last line.
    const auto border = static_cast<size_t>(train_bytes_ - at);
    const size_t line_end = piece.text.find('\n', border - 1);
    return line_end != std::string_view::npos ? line_end + 1 : utf8_cut(piece.text, border);
  }

 private:
  SplitRule rule_ = SplitRule::kNone;
  uint64_t key_ = 0, threshold_ = 0;  // kDocuments
  uint64_t train_bytes_ = 0;          // kTail
};

}  // namespace

PrepareResult prepare(const PrepareOptions& options, const PrepareProgress& progress) {
  check(options);
  const Passes passes(options, progress);
  Scan scan = passes.scan();
  const std::unique_ptr<Tokenizer> tokenizer = passes.make_tokenizer(std::move(scan.sample));
  const Split split(options, scan);

  TokenStoreWriter writer(options.output,
                          {.tokenizer = tokenizer->name(),
                           .model = tokenizer->model(),
                           .vocab_size = tokenizer->vocab_size(),
                           .eos_id = tokenizer->eos_id(),
                           .source = fmt::format("{}", fmt::join(options.inputs, " "))});
  ParallelEncoder encoder(*tokenizer, writer);
  uint64_t text_bytes = 0, n_documents = 0;
  passes.for_each_piece(PreparePhase::kEncode, [&](const TextPiece& piece) {
    const size_t n = split.train_bytes(piece, text_bytes);
    const bool to_the_end = n == piece.text.size();
    // A document that the border of the parts cuts is one document in either part.
    const bool cut_here = n > 0 && !to_the_end;
    encoder.add(Part::kTrain, piece.text.substr(0, n),
                cut_here || (to_the_end && piece.ends_document));
    encoder.add(Part::kValidation, piece.text.substr(n), !to_the_end && piece.ends_document);
    text_bytes += piece.text.size();
    n_documents += piece.ends_document;
  });
  encoder.flush();
  if (text_bytes != scan.text_bytes || n_documents != scan.n_documents) {
    throw Error(
        fmt::format("{}: the text changed while it was read: expected {} bytes in {} "
                    "documents, found {} in {}; start again",
                    fmt::join(options.inputs, " "), scan.text_bytes, scan.n_documents, text_bytes,
                    n_documents));
  }
  return {.info = writer.finish(),
          .split = split.rule(),
          .n_files = passes.n_files(),
          .n_documents = n_documents,
          .text_bytes = text_bytes};
}

}  // namespace qstep::data
