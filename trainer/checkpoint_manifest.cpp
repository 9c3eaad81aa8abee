#include "trainer/checkpoint_manifest.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ops/error.h"
#include "trainer/checkpoint_files.h"

namespace qstep::trainer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "quarterstep checkpoint";
constexpr int64_t kFormatVersion = 1;
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

TensorSlice slice_from(const Json& json, const ManifestTensor& tensor) {
  TensorSlice slice;
  slice.file = plain_name(json.at("file"));
  slice.first_row = json.at("first").at(0);
  slice.first_col = json.at("first").at(1);
  slice.rows = json.at("shape").at(0);
  slice.cols = json.at("shape").at(1);
  slice.offset = json.at("offset");
  slice.hash = json.at("xxh3_128");
  const auto inside = [](int64_t first, int64_t n, int64_t size) {
    return first >= 0 && n > 0 && first <= size && n <= size - first;
  };
  if (!inside(slice.first_row, slice.rows, tensor.rows) ||
      !inside(slice.first_col, slice.cols, tensor.cols) || slice.offset < 0) {
    fail(fmt::format("tensor {}: a slice reaches outside", tensor.name));
  }
  return slice;
}

Manifest from_json(const Json& json) {
  if (json.at("format") != kFormat) fail("not a checkpoint of qstep");
  if (json.at("format_version") != kFormatVersion) {
    fail(fmt::format("expected format_version {}, found {}; use the qstep that wrote it",
                     kFormatVersion, json.at("format_version").dump()));
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
    constexpr int64_t kMaxElements = int64_t{1} << 56;  // so that no product below overflows
    if (tensor.rows <= 0 || tensor.cols <= 0 || tensor.rows > kMaxElements / tensor.cols) {
      fail(fmt::format("tensor {}: impossible shape", tensor.name));
    }
    for (const Json& slice : row.at("slices")) tensor.slices.push_back(slice_from(slice, tensor));
    manifest.tensors.push_back(std::move(tensor));
  }
  return manifest;
}

// The tensor of `file` whose bytes do not match, as text; empty when all do.
std::string damaged_tensor(const Manifest& manifest, const std::string& path,
                           const std::string& file) {
  for (const ManifestTensor& tensor : manifest.tensors) {
    for (const TensorSlice& slice : tensor.slices) {
      if (slice.file != file) continue;
      const int64_t bytes = slice.rows * slice.cols * ops::size_bytes(tensor.dtype);
      const std::string found = hash_file_range(path, slice.offset, bytes);
      if (found == slice.hash) continue;
      return fmt::format("tensor {} is damaged: expected XXH3 {}, found {}", tensor.name,
                         slice.hash, found);
    }
  }
  return "";
}

std::string file_problem(const Manifest& manifest, const std::string& folder,
                         const ManifestFile& file, Verify verify) {
  const std::string path = folder + "/" + file.name;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return fmt::format("{}: {}", path, errno == ENOENT ? "is missing" : std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) return fmt::format("{}: is not a file", path);
  if (status.st_size != file.bytes) {
    return fmt::format("{}: expected {} bytes, found {}", path, file.bytes, status.st_size);
  }
  if (verify == Verify::kFast) return "";
  try {
    const std::string found = hash_file(path);
    if (found == file.hash) return "";
    const std::string tensor = damaged_tensor(manifest, path, file.name);
    if (!tensor.empty()) return fmt::format("{}: {}", path, tensor);
    return fmt::format("{}: is damaged outside the tensors: expected XXH3 {}, found {}", path,
                       file.hash, found);
  } catch (const std::system_error& error) {
    return fmt::format("{}: cannot read: {}", path, error.code().message());
  }
}

}  // namespace

int64_t Manifest::bytes() const {
  int64_t sum = 0;
  for (const ManifestFile& file : files) sum += file.bytes;
  return sum;
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
                        {"first", {slice.first_row, slice.first_col}},
                        {"shape", {slice.rows, slice.cols}},
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

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestFile;
  std::string text;
  try {
    text = read_file(path);
  } catch (const std::system_error& error) {
    const bool missing = error.code() == std::errc::no_such_file_or_directory;
    fail(fmt::format("{}: {}", path, missing ? "is missing" : error.code().message()));
  }
  const std::string_view expected = manifest_hash(text);
  if (expected.empty()) fail(fmt::format("{}: is truncated or damaged", path));
  const size_t covered = text.size() - kHashDigits - kAfterHash.size();
  const std::string found = hash_hex(text.data(), covered);
  if (expected != found) {
    fail(fmt::format("{}: is damaged: expected XXH3 {}, found {}", path, expected, found));
  }
  try {
    return from_json(Json::parse(text));
  } catch (const Json::exception& error) {
    fail(fmt::format("{}: not the manifest of a checkpoint: {}", path, error.what()));
  } catch (const ops::Error& error) {
    fail(fmt::format("{}: {}", path, error.what()));
  }
}

std::string manifest_problem(const Manifest& manifest, const std::string& folder, Verify verify) {
  // Names and sizes of all files first: they are cheap.
  for (const ManifestFile& file : manifest.files) {
    std::string problem = file_problem(manifest, folder, file, Verify::kFast);
    if (!problem.empty()) return problem;
  }
  if (verify == Verify::kFast) return "";
  for (const ManifestFile& file : manifest.files) {
    std::string problem = file_problem(manifest, folder, file, Verify::kFull);
    if (!problem.empty()) return problem;
  }
  return "";
}

}  // namespace qstep::trainer
