#include "trainer/checkpoint/checkpoint_manifest.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "trainer/base/durable_files.h"

namespace qstep::trainer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "quarterstep checkpoint";
constexpr int64_t kFormatVersion = 2;
// Written by one rank: every tensor has one slice, a whole block under the tensor's own name.
constexpr int64_t kBlocksOnlyVersion = 1;
constexpr size_t kHashDigits = 32;
constexpr std::string_view kBeforeHash = ",\n \"xxh3_128\": \"";
constexpr std::string_view kAfterHash = "\"\n}\n";

[[noreturn]] void fail(const std::string& text) {
  throw ops::Error(ops::ExitCode::kCheckpoint, text);
}

ops::Dtype dtype_from(const std::string& text) {
  for (const ops::Dtype dtype : {ops::Dtype::kF32, ops::Dtype::kBf16, ops::Dtype::kI32}) {
    if (text == ops::name(dtype)) return dtype;
  }
  fail(fmt::format("unknown tensor type \"{}\"", text));
}

// A name that stays inside the folder.
std::string plain_name(const Json& json) {
  auto name = json.get<std::string>();
  if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos) {
    fail(fmt::format("\"{}\" is not a plain file name", name));
  }
  return name;
}

TensorSlice slice_from(const Json& json, const ManifestTensor& tensor, int64_t version) {
  TensorSlice slice;
  slice.file = plain_name(json.at("file"));
  slice.held = {.rows = tensor.rows,
                .cols = tensor.cols,
                .first_row = json.at("first").at(0),
                .first_col = json.at("first").at(1),
                .block_rows = json.at("shape").at(0),
                .block_cols = json.at("shape").at(1),
                .first = 0,
                .count = 1};
  const auto check_held = [&] {
    if (slice.held.valid()) return;
    fail(fmt::format("tensor {}: a slice reaches outside", tensor.name));
  };
  check_held();  // before the size of the block is computed
  if (version == kBlocksOnlyVersion) {
    slice.dataset = "/" + tensor.name;
    slice.held.count = slice.held.block_rows * slice.held.block_cols;
  } else {
    slice.dataset = json.at("dataset");
    slice.held.first = json.at("run").at(0);
    slice.held.count = json.at("run").at(1);
    check_held();
  }
  slice.offset = json.at("offset");
  slice.hash = json.at("xxh3_128");
  if (slice.offset < 0) fail(fmt::format("tensor {}: a slice begins nowhere", tensor.name));
  return slice;
}

Manifest from_json(const Json& json) {
  if (json.at("format") != kFormat) fail("not a checkpoint of qstep");
  const int64_t version = json.at("format_version");
  if (version != kFormatVersion && version != kBlocksOnlyVersion) {
    fail(fmt::format("expected format_version {} or {}, found {}; use the qstep that wrote it",
                     kBlocksOnlyVersion, kFormatVersion, version));
  }
  Manifest manifest;
  manifest.step = json.at("step");
  manifest.ranks = json.at("ranks");
  for (const Json& row : json.at("files")) {
    manifest.files.push_back({plain_name(row.at("name")), row.at("bytes"), row.at("xxh3_128")});
  }
  for (const Json& row : json.at("tensors")) {
    ManifestTensor tensor;
    tensor.name = row.at("name");
    tensor.dtype = dtype_from(row.at("dtype"));
    tensor.rows = row.at("shape").at(0);
    tensor.cols = row.at("shape").at(1);
    if (!possible_shape(tensor.rows, tensor.cols)) {
      fail(fmt::format("tensor {}: impossible shape", tensor.name));
    }
    for (const Json& slice : row.at("slices")) {
      tensor.slices.push_back(slice_from(slice, tensor, version));
    }
    manifest.tensors.push_back(std::move(tensor));
  }
  return manifest;
}

}  // namespace

int64_t Manifest::bytes() const {
  int64_t sum = 0;
  for (const ManifestFile& file : files) sum += file.bytes;
  return sum;
}

std::vector<ManifestTensor> join_slices(std::span<const ManifestTensor> entries) {
  std::vector<ManifestTensor> tensors;
  std::map<std::string_view, size_t> index;
  for (const ManifestTensor& entry : entries) {
    const auto [at, is_new] = index.emplace(entry.name, tensors.size());
    if (is_new) {
      tensors.push_back(entry);
      continue;
    }
    ManifestTensor& known = tensors[at->second];
    ops::check(known.dtype == entry.dtype && known.rows == entry.rows && known.cols == entry.cols,
               "checkpoint: type or shape of tensor " + entry.name + " differs between slices");
    known.slices.insert(known.slices.end(), entry.slices.begin(), entry.slices.end());
  }
  return tensors;
}

std::string rank_file(int64_t rank) { return fmt::format("rank{:05}.h5", rank); }

std::string to_json(const Manifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["format_version"] = kFormatVersion;
  json["step"] = manifest.step;
  json["ranks"] = manifest.ranks;
  json["files"] = Json::array();
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3_128", file.hash}});
  }
  json["tensors"] = Json::array();
  for (const ManifestTensor& tensor : manifest.tensors) {
    Json slices = Json::array();
    for (const TensorSlice& slice : tensor.slices) {
      slices.push_back({{"file", slice.file},
                        {"dataset", slice.dataset},
                        {"first", {slice.held.first_row, slice.held.first_col}},
                        {"shape", {slice.held.block_rows, slice.held.block_cols}},
                        {"run", {slice.held.first, slice.held.count}},
                        {"offset", slice.offset},
                        {"xxh3_128", slice.hash}});
    }
    json["tensors"].push_back({{"name", tensor.name},
                               {"dtype", ops::name(tensor.dtype)},
                               {"shape", {tensor.rows, tensor.cols}},
                               {"slices", std::move(slices)}});
  }
  std::string text = json.dump(1);
  text.resize(text.size() - std::string_view("\n}").size());
  text += kBeforeHash;
  text += hash_hex(text.data(), text.size());
  text += kAfterHash;
  return text;
}

std::string_view manifest_hash(std::string_view text) {
  const size_t tail = kHashDigits + kAfterHash.size();
  if (text.size() < tail || !text.ends_with(kAfterHash)) return {};
  return text.substr(text.size() - tail, kHashDigits);
}

Manifest manifest_from_json(std::string_view text, const std::string& where) {
  const std::string_view expected = manifest_hash(text);
  if (expected.empty()) fail(fmt::format("{}: is truncated or damaged", where));
  const size_t covered = text.size() - kHashDigits - kAfterHash.size();
  const std::string found = hash_hex(text.data(), covered);
  if (expected != found) {
    fail(fmt::format("{}: is damaged: expected XXH3 {}, found {}", where, expected, found));
  }
  try {
    return from_json(Json::parse(text));
  } catch (const Json::exception& error) {
    fail(fmt::format("{}: not the manifest of a checkpoint: {}", where, error.what()));
  } catch (const ops::Error& error) {
    fail(fmt::format("{}: {}", where, error.what()));
  }
}

}  // namespace qstep::trainer
