// Text in, token store out: what `qstep data prepare` does. Two passes over the text in bounded
// memory; the same inputs and options give the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/text_source.h"
#include "data/token_store.h"

namespace qstep::data {

enum class TokenizerKind {
  kSentencePiece,  // trained on the text
  kBytes,
  kModelFile,  // an existing SentencePiece model
};

struct PrepareOptions {
  std::vector<std::string> inputs;  // files and folders
  std::vector<std::string> globs = kDefaultGlobs;
  std::string field = "text";  // of .jsonl lines
  std::string output;

  TokenizerKind tokenizer = TokenizerKind::kSentencePiece;
  uint32_t vocab_size = 8192;                               // kSentencePiece: at most this
  uint64_t train_tokenizer_max_bytes = uint64_t{16} << 20;  // kSentencePiece: sample of the text
  std::string model_path;                                   // kModelFile

  // Part of the text that is held out, 0 to 0.5. Raised so that it has at least 64 KiB, or a tenth
  // of a small text: less says little about a model. 0 holds out nothing.
  double validation_fraction = 0.01;
  uint64_t seed = 1;  // which documents are held out, which sentences train the tokenizer
};

enum class PreparePhase { kScan, kTrainTokenizer, kEncode };

// Called often, with bytes of the input files; kTrainTokenizer is called once, with 0 of 0. May
// throw to stop the work, which removes what was written.
using PrepareProgress = std::function<void(PreparePhase phase, uint64_t done, uint64_t total)>;

// How the validation part was chosen.
enum class SplitRule {
  kNone,
  kDocuments,  // whole documents by hash(seed, number); needs an expectation of kMinSplitDocuments
  kTail,       // the end of the text, when there are too few documents
};
inline constexpr double kMinSplitDocuments = 20;  // then none at all has probability e^-20 = 2e-9

struct PrepareResult {
  StoreInfo info;
  SplitRule split = SplitRule::kNone;
  uint64_t n_files = 0;
  uint64_t n_documents = 0;
  uint64_t text_bytes = 0;
};

PrepareResult prepare(const PrepareOptions& options, const PrepareProgress& progress = {});

}  // namespace qstep::data
