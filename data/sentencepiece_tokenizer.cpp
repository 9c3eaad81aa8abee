#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <unordered_map>

#include "data/tokenizer.h"
#include "data/utf8.h"
#include "data/word_border.h"

namespace qstep::data {
namespace {

constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";           // U+2581 stands for a space
constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";  // U+FFFD

// Appended to a serialized ModelProto, this overrides its normalizer_spec (field 3): a repeated
// embedded message is merged, the last value of each field wins (protobuf encoding, "Last One
// Wins"). It empties precompiled_charsmap (2) and clears add_dummy_prefix (3) and
// remove_extra_whitespaces (4), and sets escape_whitespaces (5): nothing of the text is lost.
constexpr std::string_view kLosslessNormalizer("\x1a\x08\x12\x00\x18\x00\x20\x00\x28\x01", 10);

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(std::string model_bytes) : model_(std::move(model_bytes)) {
    const auto status =
        processor_.LoadFromSerializedProto(model_ + std::string(kLosslessNormalizer));
    if (!status.ok() || processor_.GetPieceSize() <= 0) {
      throw Error("SentencePiece: the model cannot be read; expected the content of a .model file");
    }
    const int eos = processor_.eos_id();
    if (eos < 0) {
      throw Error("SentencePiece: the model has no end-of-sentence piece, which ends documents");
    }
    eos_id_ = static_cast<uint32_t>(eos);
    index_pieces();
  }

  const std::string& name() const override { return name_; }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(surfaces_.size()); }
  uint32_t eos_id() const override { return eos_id_; }
  const std::string& model() const override { return model_; }

  std::vector<uint32_t> encode(std::string_view text) const override {
    std::vector<uint32_t> ids;
    size_t begin = 0;  // of the text that SentencePiece can represent
    for (size_t at = 0; at < text.size();) {
      const size_t length = utf8_length(text, at);
      const bool is_space_symbol = length == 3 && text.substr(at, 3) == kSpaceSymbol;
      if (length > 0 && !is_space_symbol) {
        at += length;
        continue;
      }
      // Malformed bytes, and the character that would come back as a space, go byte by byte.
      encode_plain(text.substr(begin, at - begin), ids);
      begin = at + (is_space_symbol ? 3 : 1);
      for (; at < begin; ++at) ids.push_back(byte_ids_[static_cast<unsigned char>(text[at])]);
    }
    encode_plain(text.substr(begin), ids);
    return ids;
  }

  std::string decode(std::span<const uint32_t> ids) const override {
    std::string text;
    for (const uint32_t id : ids) {
      if (id >= vocab_size()) {
        throw Error(fmt::format("SentencePiece: token {} is outside the vocabulary of {}", id,
                                vocab_size()));
      }
      text += surfaces_[id];
    }
    return text;
  }

 private:
  // Text that SentencePiece can represent: word by word where that gives the same tokens, because
  // words repeat and looking one up is ten times as fast as encoding it.
  void encode_plain(std::string_view text, std::vector<uint32_t>& ids) const {
    if (text.empty()) return;
    if (!words_are_independent_) {
      encode_pieces(text, ids);
      return;
    }
    WordCache& cache = this_threads_cache();
    for (size_t begin = 0; begin < text.size();) {
      size_t end = begin + 1;
      while (end < text.size() && !is_word_border(text[end - 1], text[end])) ++end;
      const std::string_view word = text.substr(begin, end - begin);
      begin = end;
      if (word.size() > kMaxCachedWordBytes) {
        encode_pieces(word, ids);
        continue;
      }
      if (const auto known = cache.words.find(word); known != cache.words.end()) {
        ids.insert(ids.end(), known->second.begin(), known->second.end());
        continue;
      }
      const size_t had = ids.size();
      encode_pieces(word, ids);
      if (cache.words.size() == kMaxCachedWords) cache.words.clear();
      cache.words.emplace(word, std::vector<uint32_t>(ids.begin() + had, ids.end()));
    }
  }

  void encode_pieces(std::string_view text, std::vector<uint32_t>& ids) const {
    std::vector<int> pieces;
    const auto status = processor_.Encode(text, &pieces);
    if (!status.ok()) throw Error(fmt::format("SentencePiece: {}", status.ToString()));
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

  // Tokens of words that a thread met lately, for the tokenizer that it used last.
  struct WordCache {
    struct Hash : std::hash<std::string_view> {
      using is_transparent = void;
    };
    uint64_t owner = 0;
    std::unordered_map<std::string, std::vector<uint32_t>, Hash, std::equal_to<>> words;
  };
  static constexpr size_t kMaxCachedWords = 1 << 17;  // with their tokens about 16 MiB
  static constexpr size_t kMaxCachedWordBytes = 64;   // longer ones hardly repeat

  WordCache& this_threads_cache() const {
    thread_local WordCache cache;
    if (cache.owner != serial_number_) {
      cache.owner = serial_number_;
      cache.words.clear();
    }
    return cache;
  }

  // What each id decodes to, and which id each byte has.
  void index_pieces() {
    std::array<bool, 256> found{};
    surfaces_.resize(processor_.GetPieceSize());
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      const std::string& piece = processor_.IdToPiece(id);
      std::string& surface = surfaces_[id];
      if (processor_.IsByte(id)) {  // "<0x0A>"
        const auto byte = static_cast<unsigned char>(std::strtoul(piece.c_str() + 1, nullptr, 16));
        surface.assign(1, static_cast<char>(byte));
        byte_ids_[byte] = static_cast<uint32_t>(id);
        found[byte] = true;
      } else if (processor_.IsUnknown(id)) {
        surface = kReplacementCharacter;
      } else if (!processor_.IsControl(id)) {
        for (size_t at = 0; at < piece.size();) {
          const bool space = piece.compare(at, kSpaceSymbol.size(), kSpaceSymbol) == 0;
          surface += space ? ' ' : piece[at];
          at += space ? kSpaceSymbol.size() : 1;
        }
        for (size_t at = 1; at < surface.size(); ++at) {
          if (is_word_border(surface[at - 1], surface[at])) words_are_independent_ = false;
        }
      }
    }
    for (int byte = 0; byte < 256; ++byte) {
      if (!found[byte]) {
        throw Error(
            fmt::format("SentencePiece: the model has no piece for byte 0x{:02X}, so text "
                        "outside its alphabet would be lost; train it with --byte_fallback",
                        byte));
      }
    }
  }

  const std::string name_ = "sentencepiece";
  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
  uint32_t eos_id_ = 0;
  std::array<uint32_t, 256> byte_ids_{};
  std::vector<std::string> surfaces_;
  bool words_are_independent_ = true;  // no piece crosses a border of words
  const uint64_t serial_number_ = ++n_created_;
  static inline std::atomic<uint64_t> n_created_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string model_bytes) {
  return std::make_unique<SentencePieceTokenizer>(std::move(model_bytes));
}

}  // namespace qstep::data
