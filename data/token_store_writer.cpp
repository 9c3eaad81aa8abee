#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "data/content_hash.h"
#include "data/publish.h"
#include "data/store_layout.h"
#include "data/token_store.h"

namespace qstep::data {

namespace {
constexpr uint64_t kChunkOffsets = 8192;  // 64 KiB of doc_offsets
constexpr size_t kMaxSourceBytes = 1024;  // attributes must stay far below the library's 64 KiB
}  // namespace

// One part on its way to disk: whole chunks are written and hashed as they fill up.
struct TokenStoreWriter::PartWriter {
  PartWriter(Hdf5File& file, const std::string& group, Hdf5Type type)
      : tokens(file.create_growing_dataset(
            group + dataset::kTokens, type,
            {.chunk_elements = kChunkTokens, .checksum = Checksum::kFletcher32})),
        doc_offsets(file.create_growing_dataset(
            group + dataset::kDocOffsets, Hdf5Type::kU64,
            {.chunk_elements = kChunkOffsets, .checksum = Checksum::kFletcher32})) {
    pending.reserve(kChunkTokens * size_bytes(type));
    pending_offsets.reserve(kChunkOffsets);
    pending_offsets.push_back(0);
  }

  template <class T>
  void append(std::span<const uint32_t> ids) {
    constexpr size_t kFull = kChunkTokens * sizeof(T);
    while (!ids.empty()) {
      const size_t at = pending.size();
      const size_t n = std::min(ids.size(), (kFull - at) / sizeof(T));
      pending.resize(at + n * sizeof(T));
      std::copy_n(ids.begin(), n, reinterpret_cast<T*>(pending.data() + at));
      ids = ids.subspan(n);
      info.num_tokens += n;
      if (pending.size() == kFull) flush_tokens();
    }
  }

  void flush_tokens() {
    hash.add(pending.data(), pending.size());
    tokens.append(pending.size() / size_bytes(tokens.type()), pending.data());
    pending.clear();
  }

  void flush_offsets() {
    doc_offsets.append(pending_offsets.size(), pending_offsets.data());
    pending_offsets.clear();
  }

  void end_document() {
    if (info.num_tokens == last_offset) return;
    last_offset = info.num_tokens;
    ++info.num_documents;
    pending_offsets.push_back(last_offset);
    if (pending_offsets.size() == kChunkOffsets) flush_offsets();
  }

  // The hash covers doc_offsets after all tokens: they are read back from the file.
  void finish() {
    end_document();
    flush_tokens();
    flush_offsets();
    std::vector<uint64_t> block(kChunkOffsets);
    for (uint64_t first = 0; first < doc_offsets.size(); first += block.size()) {
      const uint64_t n = std::min<uint64_t>(block.size(), doc_offsets.size() - first);
      doc_offsets.read(first, n, block.data());
      hash.add(block.data(), n * sizeof(uint64_t));
    }
    info.content_hash = hash.hex();
    tokens.close();
    doc_offsets.close();
  }

  Hdf5Dataset tokens, doc_offsets;
  PartInfo info;
  ContentHash hash;
  std::vector<uint8_t> pending;  // tokens as stored, less than a chunk
  std::vector<uint64_t> pending_offsets;
  uint64_t last_offset = 0;
};

TokenStoreWriter::TokenStoreWriter(const std::string& path, StoreHeader header)
    : path_(path), temporary_path_(temporary_name(path)), header_(std::move(header)) {
  if (header_.vocab_size == 0 || header_.eos_id >= header_.vocab_size) {
    throw Error(fmt::format("{}: expected eos_id below vocab_size, found {} and {}", path,
                            header_.eos_id, header_.vocab_size));
  }
  const Hdf5Type type = header_.vocab_size <= kMaxVocabU16 ? Hdf5Type::kU16 : Hdf5Type::kU32;
  file_ = Hdf5File::create(temporary_path_);
  try {
    for (const Part part : kParts) {
      const std::string group = group_of(part);
      if (!group.empty()) file_.create_group(group);
      parts_[static_cast<size_t>(part)] = std::make_unique<PartWriter>(file_, group, type);
    }
  } catch (...) {
    std::remove(temporary_path_.c_str());
    throw;
  }
}

TokenStoreWriter::~TokenStoreWriter() {
  if (!temporary_path_.empty()) std::remove(temporary_path_.c_str());
}

void TokenStoreWriter::append(Part part, std::span<const uint32_t> tokens, uint64_t text_bytes) {
  PartWriter& to = writer(part);
  const auto bad = std::find_if(tokens.begin(), tokens.end(),
                                [&](uint32_t token) { return token >= header_.vocab_size; });
  if (bad != tokens.end()) {
    throw Error(fmt::format("{}: {} token {}: expected an id below vocab_size {}, found {}", path_,
                            part_name(part), to.info.num_tokens + (bad - tokens.begin()),
                            header_.vocab_size, *bad));
  }
  if (to.tokens.type() == Hdf5Type::kU16) {
    to.append<uint16_t>(tokens);
  } else {
    to.append<uint32_t>(tokens);
  }
  to.info.num_bytes += text_bytes;
}

void TokenStoreWriter::end_document(Part part) { writer(part).end_document(); }

StoreInfo TokenStoreWriter::finish() {
  const Hdf5Lock lock;
  StoreInfo info{.tokenizer = header_.tokenizer,
                 .tokenizer_sha256 = tokenizer_sha256(header_.tokenizer, header_.model),
                 .vocab_size = header_.vocab_size,
                 .eos_id = header_.eos_id,
                 .source = header_.source.substr(0, kMaxSourceBytes),
                 .token_type = writer(Part::kTrain).tokens.type(),
                 .parts = {}};
  file_.write_attribute("/", attribute::kFormatVersion, info.format_version);
  file_.write_attribute("/", attribute::kTokenizer, info.tokenizer);
  file_.write_attribute("/", attribute::kTokenizerSha256, info.tokenizer_sha256);
  file_.write_attribute("/", attribute::kVocabSize, info.vocab_size);
  file_.write_attribute("/", attribute::kEosId, info.eos_id);
  file_.write_attribute("/", attribute::kSource, info.source);
  if (!header_.model.empty()) {
    file_.write_dataset(dataset::kTokenizerModel, Hdf5Type::kU8, header_.model.size(),
                        header_.model.data(),
                        {.chunk_elements = kChunkTokens, .checksum = Checksum::kFletcher32});
  }
  for (const Part part : kParts) {
    PartWriter& done = writer(part);
    done.finish();
    const std::string object = attributes_of(part);
    file_.write_attribute(object, attribute::kNumTokens, done.info.num_tokens);
    file_.write_attribute(object, attribute::kNumBytes, done.info.num_bytes);
    file_.write_attribute(object, attribute::kContentHash, done.info.content_hash);
    info.parts[static_cast<size_t>(part)] = done.info;
  }
  file_.close();
  publish(temporary_path_, path_);
  temporary_path_.clear();
  return info;
}

}  // namespace qstep::data
