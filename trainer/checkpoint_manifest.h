// manifest.json: what a checkpoint consists of, with a checksum for every file and every tensor.
// Rule: a folder is a checkpoint when its manifest verifies, and for no other reason.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ops/tensor.h"
#include "trainer/checkpoint.h"

namespace qstep::trainer {

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kStateFile = "state.json";
inline constexpr const char* kTokenizerFile = "tokenizer.model";  // only when the run has one

// The part of a tensor that one rank holds: a block of the global matrix, row-major and contiguous.
struct TensorSlice {
  std::string file;
  int64_t first_row = 0;
  int64_t first_col = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t offset = 0;  // bytes from the beginning of the file
  std::string hash;    // XXH3-128 of the elements, taken in memory before they were written
};

struct ManifestTensor {
  std::string name;
  ops::Dtype dtype = ops::Dtype::kF32;
  int64_t rows = 0;  // global shape
  int64_t cols = 0;
  std::vector<TensorSlice> slices;
};

struct ManifestFile {
  std::string name;
  int64_t bytes = 0;
  std::string hash;
};

struct Manifest {
  int64_t step = 0;
  int64_t ranks = 1;
  std::vector<ManifestFile> files;
  std::vector<ManifestTensor> tensors;

  int64_t bytes() const;  // of all files
};

// "rank00000.h5"
std::string rank_file(int64_t rank);

// JSON whose last member is the XXH3-128 of all text in front of its digits.
std::string to_json(const Manifest& manifest);

// The checksum inside a manifest's text; empty when there is none.
std::string_view manifest_hash(std::string_view text);

// Reads and checks <folder>/manifest.json. Throws Error (checkpoint).
Manifest read_manifest(const std::string& folder);

// Compares the files of `folder` with its manifest; the first difference, or an empty text. A
// damaged tensor is named with both hashes.
std::string manifest_problem(const Manifest& manifest, const std::string& folder, Verify verify);

}  // namespace qstep::trainer
