#include "data/publish.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "data/error.h"

namespace qstep::data {
namespace {

[[noreturn]] void fail(const std::string& path, const char* step) {
  throw Error(fmt::format("{}: cannot {}: {}", path, step, std::strerror(errno)), ErrorKind::kDisk);
}

void sync_to_disk(const std::string& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0) fail(path, "open for fsync");
  const bool synced = ::fsync(descriptor) == 0;
  const int code = errno;
  const bool closed = ::close(descriptor) == 0;
  if (!synced) errno = code;
  if (!synced || !closed) fail(path, "write to disk (fsync)");
}

}  // namespace

std::string temporary_name(const std::string& path) {
  return fmt::format("{}.tmp-{}", path, ::getpid());
}

void publish(const std::string& temporary, const std::string& path) {
  sync_to_disk(temporary, O_RDONLY);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "rename into place");
  // Absolute, so that there is a parent to name.
  sync_to_disk(std::filesystem::absolute(path).parent_path(), O_RDONLY | O_DIRECTORY);
}

}  // namespace qstep::data
