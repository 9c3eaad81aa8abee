// manifest.json: what a checkpoint consists of, with a checksum for every file and every tensor.
// Rule: a folder is a checkpoint when its manifest verifies, and for no other reason.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/tensor.h"
#include "trainer/checkpoint/checkpoint.h"

namespace qstep::trainer {

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kStateFile = "state.json";
inline constexpr const char* kTokenizerFile = "tokenizer.model";  // only when the run has one

// Elements of a tensor that lie one behind the other in a file.
struct TensorSlice {
  std::string file;
  std::string dataset;  // "/master/blocks.3.qkv.weight"
  Slice held;
  int64_t offset = 0;  // bytes from the beginning of the file
  std::string hash;    // XXH3-128 of the elements, taken in memory before they were written
};

struct ManifestTensor {
  std::string name;
  ops::Dtype dtype = ops::Dtype::kF32;
  int64_t rows = 0;  // global shape
  int64_t cols = 0;
  std::vector<TensorSlice> slices;  // hold every element once, in a manifest that is complete
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

// Entries of one name become one with the slices of all, in this order. Throws Error (internal)
// where they disagree about shape or type.
std::vector<ManifestTensor> join_slices(std::span<const ManifestTensor> entries);

// What keeps a manifest from describing a whole checkpoint: a tensor of which elements are in no
// slice or in two, a slice outside its file; empty when nothing does.
std::string completeness_problem(const Manifest& manifest);

// JSON whose last member is the XXH3-128 of all text in front of its digits.
std::string to_json(const Manifest& manifest);

// The checksum inside a manifest's text; empty when there is none.
std::string_view manifest_hash(std::string_view text);

// The inverse of to_json; also reads format version 1. Error (checkpoint) "<where>: ..." for text
// that is damaged or no manifest. The manifest need not be complete.
Manifest manifest_from_json(std::string_view text, const std::string& where);

// Reads and checks <folder>/manifest.json, its completeness included. Throws Error (checkpoint).
Manifest read_manifest(const std::string& folder);

// Name, size and checksum of a file that is on disk. Throws std::system_error.
ManifestFile describe_file(const std::string& folder, const std::string& name);

// What to say of a slice whose elements have checksum `found`.
std::string damage_text(const ManifestTensor& tensor, const TensorSlice& slice,
                        const std::string& found);

// Compares the files of `folder` with its manifest; the first difference, or an empty text. A
// damaged tensor is named with both hashes.
std::string manifest_problem(const Manifest& manifest, const std::string& folder, Verify verify);

// The checksums alone, by all ranks of `comm`: rank r of n compares files r, r + n, ... with the
// manifest, which is the same on all. All get the text of the first damaged file of the list.
std::string damage_problem(parallel::Comm& comm, const Manifest& manifest,
                           const std::string& folder);

}  // namespace qstep::trainer
