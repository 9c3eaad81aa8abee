#include "data/tokenizer.h"

#include <fmt/format.h>

#include "data/sha256.h"

namespace qstep::data {
namespace {

constexpr std::string_view kBytesName = "bytes";
constexpr std::string_view kSentencePieceName = "sentencepiece";

class ByteTokenizer final : public Tokenizer {
 public:
  const std::string& name() const override { return name_; }
  uint32_t vocab_size() const override { return 257; }
  uint32_t eos_id() const override { return 256; }
  const std::string& model() const override { return model_; }

  std::vector<uint32_t> encode(std::string_view text) const override {
    std::vector<uint32_t> ids(text.size());
    for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  std::string decode(std::span<const uint32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const uint32_t id : ids) {
      if (id >= vocab_size()) {
        throw Error(fmt::format("byte tokenizer: token {} is outside the vocabulary of {}", id,
                                vocab_size()));
      }
      if (id != eos_id()) text += static_cast<char>(id);
    }
    return text;
  }

 private:
  const std::string name_{kBytesName};
  const std::string model_;
};

}  // namespace

std::string tokenizer_sha256(std::string_view name, std::string_view model) {
  return sha256_hex(model.empty() ? name : model);
}

std::string Tokenizer::sha256() const { return tokenizer_sha256(name(), model()); }

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name, std::string model_bytes) {
  if (name == kBytesName) return make_byte_tokenizer();
  if (name == kSentencePieceName) return make_sentencepiece_tokenizer(std::move(model_bytes));
  throw Error(fmt::format(
      "tokenizer \"{}\": its model is not part of the token store, so text cannot be encoded or "
      "decoded; use \"{}\" or \"{}\"",
      name, kBytesName, kSentencePieceName));
}

}  // namespace qstep::data
