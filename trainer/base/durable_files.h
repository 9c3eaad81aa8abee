// The changes of the file system that publish something: every one is checked, in order, and
// durable. Rule: no other code of the checkpoints or of the run folder creates, renames or removes
// files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace qstep::trainer {

// Hears of every step ("create", "fsync", "rename", ...) before it is done. An errno that it
// returns makes the step fail with it. Tests use it to crash or to fail between any two steps.
using StepHook = std::function<int(std::string_view step, const std::string& path)>;

// The bytes of a file, in order, where they already are: large ones need no copy.
using Pieces = std::span<const std::string_view>;

// Paths are reported as given. Every failure is an Error (disk) with path, step, reason and advice.
class CheckpointFiles {
 public:
  explicit CheckpointFiles(StepHook before_step = {}) : before_step_(std::move(before_step)) {}

  // Announces a step that somebody else carries out (HDF5 writes the tensors).
  void step(std::string_view what, const std::string& path) const;

  // Throws when the file system of `folder` has less room than `bytes` for this user.
  void require_space(const std::string& folder, int64_t bytes) const;
  void create_folders(const std::string& path) const;             // with parents; may exist
  void create_folder(const std::string& path) const;              // must not exist
  void write_file(const std::string& path, Pieces pieces) const;  // and fsync
  void write_file(const std::string& path, std::string_view bytes) const {
    write_file(path, Pieces(&bytes, 1));
  }
  void sync_file(const std::string& path) const;
  void sync_folder(const std::string& path) const;
  void rename(const std::string& from, const std::string& to) const;
  void remove_tree(const std::string& path) const;  // may be absent

  // A reader of `path` sees the old content or the new, whatever happens: written under the name
  // <path>.tmp-<nonce>, then renamed.
  void replace_file(const std::string& path, Pieces pieces) const;
  void replace_file(const std::string& path, std::string_view bytes) const {
    replace_file(path, Pieces(&bytes, 1));
  }

 private:
  StepHook before_step_;
};

// Eight random hexadecimal digits: tells apart the temporaries of two processes.
std::string make_nonce();

// Folder that holds `path`.
std::string parent_folder(const std::string& path);

// A file that is open for reading. Throws std::system_error.
class InputFile {
 public:
  explicit InputFile(std::string path);
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  // Bytes [offset, offset + n); it is an error when there are fewer.
  void read(int64_t offset, int64_t n, void* out) const;
  // At most n bytes from `offset` on; fewer only at the end of the file.
  size_t read_some(int64_t offset, size_t n, void* out) const;

 private:
  std::string path_;
  int fd_ = -1;
};

// Whole file. Throws std::system_error.
std::string read_file(const std::string& path);

// XXH3-128 as 32 hexadecimal digits, of memory, of a file and of `n` bytes from `offset` in a file
// (std::system_error when it cannot be read, or is shorter).
std::string hash_hex(const void* data, size_t n);
std::string hash_file(const std::string& path);
std::string hash_file_range(const std::string& path, int64_t offset, int64_t n);

// What a user can do about errno `code` of a write; begins with "; " unless empty.
std::string disk_advice(int code);

}  // namespace qstep::trainer
