#include "trainer/base/durable_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

#include "ops/error.h"

namespace qstep::trainer {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(std::string_view what, const std::string& path, int code) {
  throw ops::Error(ops::ExitCode::kDisk, fmt::format("{}: cannot {}: {}{}", path, what,
                                                     std::strerror(code), disk_advice(code)));
}

[[noreturn]] void fail_to_read(const std::string& path, int code) {
  throw std::system_error(code, std::generic_category(), path);
}

// Owns a file descriptor. close() reports; the destructor is for the error path.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) {
    do {
      fd_ = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EINTR);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_ = -1;
};

struct FreeHash {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

std::string to_hex(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

constexpr int64_t kToEnd = -1;

std::string hash_range(const InputFile& file, int64_t offset, int64_t n) {
  const std::unique_ptr<XXH3_state_t, FreeHash> state(XXH3_createState());
  XXH3_128bits_reset(state.get());
  std::vector<char> buffer(size_t{1} << 20);  // stays in the second-level cache
  while (n != 0) {
    size_t got = buffer.size();
    if (n == kToEnd) {
      got = file.read_some(offset, got, buffer.data());
      if (got == 0) break;
    } else {
      got = std::min(got, static_cast<size_t>(n));
      file.read(offset, static_cast<int64_t>(got), buffer.data());
      n -= static_cast<int64_t>(got);
    }
    XXH3_128bits_update(state.get(), buffer.data(), got);
    offset += static_cast<int64_t>(got);
  }
  return to_hex(XXH3_128bits_digest(state.get()));
}

}  // namespace

void CheckpointFiles::step(std::string_view what, const std::string& path) const {
  if (!before_step_) return;
  if (const int code = before_step_(what, path)) fail(what, path, code);
}

void CheckpointFiles::require_space(const std::string& folder, int64_t bytes) const {
  step("check the free space", folder);
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) fail("check the free space", folder, errno);
  if ((status.f_flag & ST_RDONLY) != 0) fail("write", folder, EROFS);
  const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
  if (free >= static_cast<uint64_t>(bytes)) return;
  constexpr double kMiB = 1 << 20;
  throw ops::Error(
      ops::ExitCode::kDisk,
      fmt::format("{}: not enough free space for a checkpoint: {:.1f} MiB needed, {:.1f} MiB "
                  "free{}",
                  folder, static_cast<double>(bytes) / kMiB, static_cast<double>(free) / kMiB,
                  disk_advice(ENOSPC)));
}

void CheckpointFiles::create_folders(const std::string& path) const {
  std::error_code code;
  if (fs::is_directory(path, code)) return;
  step("create the folder", path);
  fs::create_directories(path, code);
  if (code) fail("create the folder", path, code.value());
}

void CheckpointFiles::create_folder(const std::string& path) const {
  step("create the folder", path);
  if (::mkdir(path.c_str(), 0777) != 0) fail("create the folder", path, errno);
}

void CheckpointFiles::write_file(const std::string& path, Pieces pieces) const {
  step("create", path);
  Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (file.get() < 0) fail("create", path, errno);
  step("write", path);
  for (std::string_view bytes : pieces) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("write", path, errno);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }
  step("fsync", path);
  if (::fsync(file.get()) != 0) fail("fsync", path, errno);
  if (!file.close()) fail("close", path, errno);
}

void CheckpointFiles::sync_file(const std::string& path) const {
  step("fsync", path);
  Descriptor file(path, O_RDWR);
  if (file.get() < 0) fail("open for fsync", path, errno);
  if (::fsync(file.get()) != 0) fail("fsync", path, errno);
  if (!file.close()) fail("close", path, errno);
}

void CheckpointFiles::sync_folder(const std::string& path) const {
  step("fsync the folder", path);
  Descriptor folder(path, O_RDONLY | O_DIRECTORY);
  if (folder.get() < 0) fail("open for fsync", path, errno);
  // Some network file systems have no fsync of folders and need none: they say EINVAL.
  if (::fsync(folder.get()) != 0 && errno != EINVAL) fail("fsync the folder", path, errno);
  if (!folder.close()) fail("close", path, errno);
}

void CheckpointFiles::rename(const std::string& from, const std::string& to) const {
  step("rename", to);
  if (std::rename(from.c_str(), to.c_str()) != 0) fail("rename into place", to, errno);
}

void CheckpointFiles::remove_tree(const std::string& path) const {
  step("remove", path);
  std::error_code code;
  fs::remove_all(path, code);
  if (code) fail("remove", path, code.value());
}

void CheckpointFiles::replace_file(const std::string& path, Pieces pieces) const {
  const std::string temporary = fmt::format("{}.tmp-{}", path, make_nonce());
  try {
    write_file(temporary, pieces);
    rename(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(parent_folder(path));
}

std::string make_nonce() { return fmt::format("{:08x}", std::random_device{}()); }

std::string parent_folder(const std::string& path) {
  const std::string parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  do {
    fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  } while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0) fail_to_read(path_, errno);
}

InputFile::~InputFile() { ::close(fd_); }

size_t InputFile::read_some(int64_t offset, size_t n, void* out) const {
  size_t done = 0;
  while (done < n) {
    const ssize_t got =
        ::pread(fd_, static_cast<char*>(out) + done, n - done, offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_to_read(path_, errno);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void InputFile::read(int64_t offset, int64_t n, void* out) const {
  const auto wanted = static_cast<size_t>(n);
  if (read_some(offset, wanted, out) != wanted) fail_to_read(path_, EIO);  // shorter than promised
}

std::string read_file(const std::string& path) {
  const InputFile file(path);
  std::string text;
  std::vector<char> buffer(size_t{1} << 16);
  for (;;) {
    const size_t got =
        file.read_some(static_cast<int64_t>(text.size()), buffer.size(), buffer.data());
    if (got == 0) return text;
    text.append(buffer.data(), got);
  }
}

std::string hash_hex(const void* data, size_t n) { return to_hex(XXH3_128bits(data, n)); }

std::string hash_file(const std::string& path) { return hash_range(InputFile(path), 0, kToEnd); }

std::string hash_file_range(const std::string& path, int64_t offset, int64_t n) {
  return hash_range(InputFile(path), offset, n);
}

std::string disk_advice(int code) {
  switch (code) {
    case ENOSPC:
      return "; the disk is full: free space, lower run.keep_last or choose another run.dir";
    case EDQUOT:
      return "; the disk quota is used up: free space, lower run.keep_last or choose another "
             "run.dir";
    case EFBIG:
      return "; the file is larger than the file system or `ulimit -f` allows";
    case EROFS:
      return "; the file system is read-only: choose another run.dir";
    case EACCES:
    case EPERM:
      return "; permission denied: check owner and mode, or choose another run.dir";
    case EIO:
      return "; the storage reports an error: check the system log and choose another run.dir";
    default:
      return "";
  }
}

}  // namespace qstep::trainer
