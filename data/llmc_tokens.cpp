#include "data/llmc_tokens.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/publish.h"

namespace qstep::data {
namespace {

constexpr std::array<const LlmcKind*, 2> kKinds = {&kLlmcGpt2, &kLlmcLlama3};
constexpr size_t kBlockTokens = 65536;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

}  // namespace

LlmcTokenFile::LlmcTokenFile(const std::string& path)
    : path_(path), file_(std::fopen(path.c_str(), "rb"), std::fclose) {
  if (!file_) throw Error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  std::error_code failed;
  const uint64_t size = std::filesystem::file_size(path, failed);
  if (failed) throw Error(fmt::format("{}: {}", path, failed.message()));
  std::array<int32_t, 256> header{};
  if (size < kLlmcHeaderBytes ||
      std::fread(header.data(), 1, kLlmcHeaderBytes, file_.get()) != kLlmcHeaderBytes) {
    throw Error(fmt::format("{}: expected a header of {} bytes, found a file of {} bytes", path,
                            kLlmcHeaderBytes, size));
  }
  for (const LlmcKind* kind : kKinds) {
    if (header[0] == kind->magic) kind_ = kind;
  }
  if (!kind_) {
    throw Error(fmt::format("{}, offset 0: expected llm.c's magic {} or {}, found {}", path,
                            kLlmcGpt2.magic, kLlmcLlama3.magic, header[0]));
  }
  if (header[1] != kind_->version) {
    throw Error(fmt::format("{}, offset 4: expected version {}, found {}", path, kind_->version,
                            header[1]));
  }
  if (header[2] < 0) {
    throw Error(fmt::format("{}, offset 8: expected a token count, found {}", path, header[2]));
  }
  num_tokens_ = static_cast<uint64_t>(header[2]);
  const uint64_t expected = kLlmcHeaderBytes + num_tokens_ * kind_->token_bytes;
  if (size != expected) {
    throw Error(fmt::format("{}: expected {} bytes for {} tokens, found {}", path, expected,
                            num_tokens_, size));
  }
}

std::span<const uint32_t> LlmcTokenFile::read_next(std::span<uint32_t> out) {
  const size_t n = std::min<uint64_t>(out.size(), num_tokens_ - done_);
  size_t got = 0;
  if (kind_->token_bytes == sizeof(uint16_t)) {
    narrow_.resize(n);
    got = std::fread(narrow_.data(), sizeof(uint16_t), n, file_.get());
    std::copy_n(narrow_.begin(), got, out.begin());
  } else {
    got = std::fread(out.data(), sizeof(uint32_t), n, file_.get());
  }
  const auto offset = [&](uint64_t i) {
    return kLlmcHeaderBytes + (done_ + i) * kind_->token_bytes;
  };
  if (got != n) throw Error(fmt::format("{}, offset {}: cannot read", path_, offset(got)));
  for (size_t i = 0; i < n; ++i) {
    if (out[i] >= kind_->vocab_size) {
      throw Error(fmt::format("{}, offset {}: expected a token below {}, found {}", path_,
                              offset(i), kind_->vocab_size, out[i]));
    }
  }
  done_ += n;
  return out.first(n);
}

void write_llmc_tokens(const std::string& path, const LlmcKind& kind,
                       std::span<const uint32_t> tokens) {
  if (tokens.size() > INT32_MAX) {
    throw Error(fmt::format("{}: expected at most 2^31 - 1 tokens, found {}", path, tokens.size()));
  }
  const std::string temporary = temporary_name(path);
  File file(std::fopen(temporary.c_str(), "wb"), std::fclose);
  std::array<int32_t, 256> header{};
  header[0] = kind.magic;
  header[1] = kind.version;
  header[2] = static_cast<int32_t>(tokens.size());
  bool written =
      file && std::fwrite(header.data(), 1, kLlmcHeaderBytes, file.get()) == kLlmcHeaderBytes;
  for (size_t i = 0; written && i < tokens.size(); ++i) {
    written = std::fwrite(&tokens[i], kind.token_bytes, 1, file.get()) == 1;  // low bytes first
  }
  written = written && std::fclose(file.release()) == 0;
  try {
    if (!written) {
      throw Error(fmt::format("{}: cannot write: {}", path, std::strerror(errno)),
                  ErrorKind::kDisk);
    }
    publish(temporary, path);
  } catch (...) {
    std::remove(temporary.c_str());
    throw;
  }
}

namespace {

void import_part(Part part, std::vector<LlmcTokenFile>& files, TokenStoreWriter& writer,
                 uint64_t& done, uint64_t total, const Progress& progress) {
  std::vector<uint32_t> block(kBlockTokens);
  bool begins = false;  // end-of-text begins documents instead of ending them
  bool first = true;
  for (LlmcTokenFile& file : files) {
    const uint32_t end_of_text = file.kind().end_of_text;
    for (;;) {
      const std::span<const uint32_t> tokens = file.read_next(block);
      if (tokens.empty()) break;
      if (first) begins = tokens[0] == end_of_text;
      first = false;
      for (size_t from = 0; from < tokens.size();) {
        // Up to the next border: before an end-of-text that begins, after one that ends.
        const size_t skip = begins ? 1 : 0;
        const auto found = std::find(tokens.begin() + from + skip, tokens.end(), end_of_text);
        const bool border = found != tokens.end();
        const size_t to = (found - tokens.begin()) + (border && !begins ? 1 : 0);
        if (begins && tokens[from] == end_of_text) writer.end_document(part);
        writer.append(part, tokens.subspan(from, to - from), 0);
        if (border && !begins) writer.end_document(part);
        from = to;
      }
      done += tokens.size() * file.kind().token_bytes;
      if (progress) progress(done, total);
    }
  }
}

}  // namespace

StoreInfo import_llmc(const LlmcImport& import, const Progress& progress) {
  if (import.train.empty()) throw Error("import: expected at least one llm.c token file");
  std::array<std::vector<LlmcTokenFile>, kParts.size()> files;
  uint64_t total = 0, done = 0;
  for (const Part part : kParts) {
    for (const std::string& path : part == Part::kTrain ? import.train : import.validation) {
      std::vector<LlmcTokenFile>& list = files[static_cast<size_t>(part)];
      list.emplace_back(path);
      total += list.back().num_tokens() * list.back().kind().token_bytes;
      if (&list.back().kind() != &files[0][0].kind()) {
        throw Error(fmt::format("{}: expected tokens of {} as in {}, found {}", path,
                                files[0][0].kind().tokenizer, import.train[0],
                                list.back().kind().tokenizer));
      }
    }
  }
  const LlmcKind& kind = files[0][0].kind();
  TokenStoreWriter writer(import.output,
                          {.tokenizer = kind.tokenizer,
                           .model = "",
                           .vocab_size = kind.vocab_size,
                           .eos_id = kind.end_of_text,
                           .source = fmt::format("llm.c {}", fmt::join(import.train, " "))});
  for (const Part part : kParts) {
    import_part(part, files[static_cast<size_t>(part)], writer, done, total, progress);
  }
  return writer.finish();
}

}  // namespace qstep::data
