#include "data/token_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "data/content_hash.h"
#include "data/store_layout.h"

namespace qstep::data {

static_assert(std::endian::native == std::endian::little, "stored bytes are used as they are");

std::string_view part_name(Part part) { return part == Part::kTrain ? "train" : "validation"; }

namespace {

// Room for a handful of chunks, so that neighbouring reads do not fetch a chunk twice.
constexpr uint64_t kCacheChunks = 8;
constexpr uint64_t kMaxModelBytes = uint64_t{256} << 20;  // far above any real tokenizer

void require(bool condition, const std::string& text) {
  if (!condition) throw Error(text + "; prepare the store again");
}

bool is_hex(const std::string& text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

[[noreturn]] void token_out_of_range(const Hdf5Dataset& tokens, uint64_t at, uint64_t token,
                                     uint64_t vocab_size) {
  throw Error(fmt::format(
      "{}, offset {}: expected a token below vocab_size {}, found {}; prepare the store again",
      tokens.where(), at, vocab_size, token));
}

// Position of the first token that is not below vocab_size, or n. The maximum first: it vectorises.
template <class T>
size_t find_out_of_range(const T* tokens, size_t n, uint64_t vocab_size) {
  T largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, tokens[i]);
  if (largest < vocab_size) return n;
  return std::find_if(tokens, tokens + n, [&](T t) { return t >= vocab_size; }) - tokens;
}

}  // namespace

TokenStore TokenStore::open(const std::string& path) {
  const Hdf5Lock lock;
  TokenStore store;
  store.file_ = Hdf5File::open(path);
  const Hdf5File& file = store.file_;
  if (!file.has_attribute("/", attribute::kFormatVersion) ||
      !file.exists(std::string(group_of(Part::kTrain)) + dataset::kTokens)) {
    throw Error(fmt::format(
        "{}: an HDF5 file, but not a token store (no /tokens or no format_version); make one with "
        "`qstep data prepare`",
        path));
  }
  StoreInfo& info = store.info_;
  info.format_version = file.read_u64("/", attribute::kFormatVersion);
  if (info.format_version != kStoreFormatVersion) {
    throw Error(fmt::format("{}: expected format_version {}, found {}; use the qstep that wrote it",
                            path, kStoreFormatVersion, info.format_version));
  }
  info.tokenizer = file.read_string("/", attribute::kTokenizer);
  info.tokenizer_sha256 = file.read_string("/", attribute::kTokenizerSha256);
  info.vocab_size = file.read_u64("/", attribute::kVocabSize);
  info.eos_id = file.read_u64("/", attribute::kEosId);
  info.source = file.read_string("/", attribute::kSource);
  require(info.vocab_size >= 1 && info.vocab_size <= INT32_MAX,
          fmt::format("{}: expected vocab_size of 1 to 2^31 - 1, found {}", path, info.vocab_size));
  require(info.eos_id < info.vocab_size,
          fmt::format("{}: expected eos_id below vocab_size {}, found {}", path, info.vocab_size,
                      info.eos_id));
  require(is_hex(info.tokenizer_sha256, 64),
          fmt::format("{}: expected tokenizer_sha256 of 64 hex digits, found \"{}\"", path,
                      info.tokenizer_sha256));
  for (const Part part : kParts) store.open_part(part);
  store.narrow_.resize(kChunkTokens);
  return store;
}

void TokenStore::open_part(Part part) {
  const std::string group = group_of(part);
  // A store without validation part is one whose validation part is empty.
  if (part == Part::kValidation && !file_.exists(group)) return;
  const std::string object = attributes_of(part);
  PartData& opened = parts_[static_cast<size_t>(part)];
  PartInfo& info = info_.parts[static_cast<size_t>(part)];

  opened.tokens =
      file_.open_dataset(group + dataset::kTokens, kCacheChunks * kChunkTokens * sizeof(uint32_t));
  opened.doc_offsets = file_.open_dataset(group + dataset::kDocOffsets);
  opened.present = true;
  const Hdf5Type type = opened.tokens.type();
  require(type == Hdf5Type::kU16 || type == Hdf5Type::kU32,
          fmt::format("{}: expected u16 or u32, found {}", opened.tokens.where(), type_name(type)));
  require(type == Hdf5Type::kU32 || info_.vocab_size <= kMaxVocabU16,
          fmt::format("{}: expected u32 for vocab_size {}, found u16", opened.tokens.where(),
                      info_.vocab_size));
  if (part == Part::kTrain) info_.token_type = type;
  require(opened.doc_offsets.type() == Hdf5Type::kU64,
          fmt::format("{}: expected u64, found {}", opened.doc_offsets.where(),
                      type_name(opened.doc_offsets.type())));

  info.num_tokens = file_.read_u64(object, attribute::kNumTokens);
  info.content_hash = file_.read_string(object, attribute::kContentHash);
  if (file_.has_attribute(object, attribute::kNumBytes)) {
    info.num_bytes = file_.read_u64(object, attribute::kNumBytes);
  }
  require(is_hex(info.content_hash, 32),
          fmt::format("{}: expected content_hash of 32 hex digits at {}, found \"{}\"", path(),
                      object, info.content_hash));
  require(opened.tokens.size() == info.num_tokens,
          fmt::format("{}: expected num_tokens = {} elements, found {}", opened.tokens.where(),
                      info.num_tokens, opened.tokens.size()));
  const uint64_t offsets = opened.doc_offsets.size();
  require(offsets >= 1,
          fmt::format("{}: expected at least one element, found 0", opened.doc_offsets.where()));
  info.num_documents = offsets - 1;
  uint64_t first = 0, last = 0;
  opened.doc_offsets.read(0, 1, &first);
  opened.doc_offsets.read(offsets - 1, 1, &last);
  require(first == 0 && last == info.num_tokens,
          fmt::format("{}: expected first 0 and last {}, found {} and {}",
                      opened.doc_offsets.where(), info.num_tokens, first, last));
}

void TokenStore::read(Part part, uint64_t first, std::span<uint32_t> out) const {
  const Hdf5Dataset& tokens = data(part).tokens;
  const uint64_t size = num_tokens(part);
  if (first > size || out.size() > size - first) {
    throw Error(fmt::format("{}: {} tokens {} to {} asked for, but there are {}", path(),
                            part_name(part), first, first + out.size(), size));
  }
  const Hdf5Lock lock;
  for (size_t done = 0; done < out.size();) {
    const size_t n = std::min<size_t>(kChunkTokens, out.size() - done);
    uint32_t* to = out.data() + done;
    if (tokens.type() == Hdf5Type::kU16) {
      tokens.read(first + done, n, narrow_.data());
      std::copy_n(narrow_.data(), n, to);
    } else {
      tokens.read(first + done, n, to);
    }
    const size_t bad = find_out_of_range(to, n, info_.vocab_size);
    if (bad < n) token_out_of_range(tokens, first + done + bad, to[bad], info_.vocab_size);
    done += n;
  }
}

std::unique_ptr<Tokenizer> TokenStore::tokenizer() const {
  std::string model;
  {
    const Hdf5Lock lock;
    if (file_.exists(dataset::kTokenizerModel)) {
      const uint64_t bytes = file_.open_dataset(dataset::kTokenizerModel).size();
      require(bytes <= kMaxModelBytes,
              fmt::format("{}: dataset {}: expected at most {} bytes, found {}", path(),
                          dataset::kTokenizerModel, kMaxModelBytes, bytes));
      model.resize(bytes);
      file_.read_dataset(dataset::kTokenizerModel, Hdf5Type::kU8, bytes, model.data());
    }
  }
  const std::string found = tokenizer_sha256(info_.tokenizer, model);
  require(found == info_.tokenizer_sha256,
          fmt::format("{}: tokenizer: expected SHA-256 {}, found {}", path(),
                      info_.tokenizer_sha256, found));
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = make_tokenizer(info_.tokenizer, std::move(model));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", path(), error.what()));
  }
  require(
      tokenizer->vocab_size() == info_.vocab_size && tokenizer->eos_id() == info_.eos_id,
      fmt::format("{}: tokenizer: expected vocab_size {} and eos_id {}, found {} and {}", path(),
                  info_.vocab_size, info_.eos_id, tokenizer->vocab_size(), tokenizer->eos_id()));
  return tokenizer;
}

void TokenStore::verify(const Progress& progress) const {
  uint64_t total = 0, done = 0;
  for (const Part part : kParts) {
    if (!data(part).present) continue;
    for (const Hdf5Dataset* d : {&data(part).tokens, &data(part).doc_offsets}) {
      total += d->size() * size_bytes(d->type());
    }
  }
  for (const Part part : kParts) {
    if (data(part).present) verify_part(part, done, total, progress);
  }
  if (file_.exists(dataset::kTokenizerModel)) tokenizer();
}

void TokenStore::verify_part(Part part, uint64_t& done, uint64_t total,
                             const Progress& progress) const {
  ContentHash hash;
  // Every block of a dataset as stored: first into the hash, then to `check(block, first, n)`.
  const auto scan = [&](const Hdf5Dataset& dataset, const auto& check) {
    const uint64_t width = size_bytes(dataset.type());
    std::vector<uint64_t> block(kChunkTokens);  // u64, so that it is aligned for every type
    for (uint64_t first = 0; first < dataset.size();) {
      const uint64_t n = std::min(kChunkTokens, dataset.size() - first);
      dataset.read(first, n, block.data());
      hash.add(block.data(), n * width);
      check(block.data(), first, n);
      first += n;
      done += n * width;
      if (progress) progress(done, total);
    }
  };

  const PartData& opened = data(part);
  const auto check_tokens = [&]<class T>(const T* tokens, uint64_t first, uint64_t n) {
    const size_t bad = find_out_of_range(tokens, n, info_.vocab_size);
    if (bad < n) token_out_of_range(opened.tokens, first + bad, tokens[bad], info_.vocab_size);
  };
  scan(opened.tokens, [&](const void* block, uint64_t first, uint64_t n) {
    if (opened.tokens.type() == Hdf5Type::kU16) {
      check_tokens(static_cast<const uint16_t*>(block), first, n);
    } else {
      check_tokens(static_cast<const uint32_t*>(block), first, n);
    }
  });
  uint64_t previous = 0;
  scan(opened.doc_offsets, [&](const void* block, uint64_t first, uint64_t n) {
    const auto* offsets = static_cast<const uint64_t*>(block);
    for (uint64_t i = 0; i < n; ++i) {
      require(offsets[i] >= previous,
              fmt::format("{}, element {}: expected at least {}, found {}",
                          opened.doc_offsets.where(), first + i, previous, offsets[i]));
      previous = offsets[i];
    }
  });
  require(hash.hex() == info_.part(part).content_hash,
          fmt::format("{}: {} part: expected content_hash {}, found {}", path(), part_name(part),
                      info_.part(part).content_hash, hash.hex()));
}

}  // namespace qstep::data
