// What a manifest must hold, and whether the files of a folder are what it says.
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <system_error>

#include "ops/error.h"
#include "trainer/base/agreement.h"
#include "trainer/base/durable_files.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace qstep::trainer {
namespace {

// A slice that does not lie in one of the files; empty when all do.
std::string misplaced_slice(const ManifestTensor& tensor,
                            const std::map<std::string, int64_t>& bytes_of_file) {
  for (const TensorSlice& slice : tensor.slices) {
    const auto file = bytes_of_file.find(slice.file);
    if (file == bytes_of_file.end()) {
      return fmt::format("tensor {}: its file {} is not in the list", tensor.name, slice.file);
    }
    const int64_t bytes = slice.held.count * ops::size_bytes(tensor.dtype);
    if (slice.offset > file->second || bytes > file->second - slice.offset) {
      return fmt::format("tensor {}: a slice reaches beyond the end of {}", tensor.name,
                         slice.file);
    }
  }
  return "";
}

std::string wrong_cover(const ManifestTensor& tensor) {
  std::vector<Slice> slices;
  for (const TensorSlice& slice : tensor.slices) slices.push_back(slice.held);
  const auto problem = cover_problem(slices, tensor.rows, tensor.cols);
  if (!problem) return "";
  const std::string element =
      fmt::format("tensor {} [{}, {}]: the element in row {}, column {}", tensor.name, tensor.rows,
                  tensor.cols, problem->row, problem->col);
  if (!problem->twice) return element + " is in no file";
  const TensorSlice& a = tensor.slices[problem->twice->first];
  const TensorSlice& b = tensor.slices[problem->twice->second];
  return fmt::format("{} is there twice: {} holds {}; {} holds {}", element, a.file,
                     describe(a.held), b.file, describe(b.held));
}

// The tensor of `file` whose bytes do not match, as text; empty when all do.
std::string damaged_tensor(const Manifest& manifest, const std::string& path,
                           const std::string& file) {
  for (const ManifestTensor& tensor : manifest.tensors) {
    for (const TensorSlice& slice : tensor.slices) {
      if (slice.file != file) continue;
      const int64_t bytes = slice.held.count * ops::size_bytes(tensor.dtype);
      const std::string found = hash_file_range(path, slice.offset, bytes);
      if (found == slice.hash) continue;
      return damage_text(tensor, slice, found);
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

std::string damage_text(const ManifestTensor& tensor, const TensorSlice& slice,
                        const std::string& found) {
  const std::string part =
      slice.held == whole(tensor.rows, tensor.cols) ? "" : " (" + describe(slice.held) + ")";
  return fmt::format("tensor {}{} is damaged: expected XXH3 {}, found {}", tensor.name, part,
                     slice.hash, found);
}

std::string completeness_problem(const Manifest& manifest) {
  std::map<std::string, int64_t> bytes_of_file;
  for (const ManifestFile& file : manifest.files) bytes_of_file[file.name] = file.bytes;
  for (const ManifestTensor& tensor : manifest.tensors) {
    std::string problem = misplaced_slice(tensor, bytes_of_file);
    if (problem.empty()) problem = wrong_cover(tensor);
    if (!problem.empty()) return problem;
  }
  return "";
}

Manifest read_manifest(const std::string& folder) {
  const auto fail = [](const std::string& text) {
    throw ops::Error(ops::ExitCode::kCheckpoint, text);
  };
  const std::string path = folder + "/" + kManifestFile;
  std::string text;
  try {
    text = read_file(path);
  } catch (const std::system_error& error) {
    const bool missing = error.code() == std::errc::no_such_file_or_directory;
    fail(fmt::format("{}: {}", path, missing ? "is missing" : error.code().message()));
  }
  Manifest manifest = manifest_from_json(text, path);
  const std::string problem = completeness_problem(manifest);
  if (!problem.empty()) fail(path + ": " + problem);
  return manifest;
}

ManifestFile describe_file(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  return {name, static_cast<int64_t>(std::filesystem::file_size(path)), hash_file(path)};
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

std::string damage_problem(parallel::Comm& comm, const Manifest& manifest,
                           const std::string& folder) {
  const auto rank = static_cast<size_t>(comm.rank()), n = static_cast<size_t>(comm.size());
  // Of each rank the first in its share: "<number of the file> <problem>".
  const std::vector<std::string> found = agree_texts(comm, [&]() -> std::string {
    for (size_t i = rank; i < manifest.files.size(); i += n) {
      const std::string problem = file_problem(manifest, folder, manifest.files[i], Verify::kFull);
      if (!problem.empty()) return fmt::format("{} {}", i, problem);
    }
    return "";
  });
  std::string first;
  size_t its_file = std::numeric_limits<size_t>::max();
  for (const std::string& text : found) {
    if (text.empty()) continue;
    size_t digits = 0;
    const size_t file = std::stoul(text, &digits);
    if (file >= its_file) continue;
    its_file = file;
    first = text.substr(digits + 1);
  }
  return first;
}

}  // namespace qstep::trainer
