#include "trainer/run/run_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ops/error.h"
#include "trainer/base/durable_files.h"

namespace qstep::trainer {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

// Content of the lock file: who holds it. Never trusted, only reported and counted up.
struct Holder {
  int64_t pid = 0;
  std::string host;
  int64_t starts = 0;
};

Holder read_holder(int fd) {
  std::array<char, 1024> buffer{};
  const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), 0);
  const auto json =
      Json::parse(buffer.data(), buffer.data() + std::max<ssize_t>(n, 0), nullptr, false);
  Holder holder{.pid = 0, .host = "unknown", .starts = 0};
  if (!json.is_object()) return holder;
  const auto number = [&](const char* key) {
    const auto it = json.find(key);
    return it != json.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  };
  holder.pid = number("pid");
  holder.starts = std::max<int64_t>(number("starts"), 0);
  const auto host = json.find("host");
  if (host != json.end() && host->is_string()) holder.host = host->get<std::string>();
  return holder;
}

void write_holder(int fd, const std::string& path, const Holder& holder) {
  const std::string text =
      Json{{"pid", holder.pid}, {"host", holder.host}, {"starts", holder.starts}}.dump() + "\n";
  const bool written =
      ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  if (!written || ::ftruncate(fd, static_cast<off_t>(text.size())) != 0) {
    throw ops::Error(ops::ExitCode::kDisk, fmt::format("{}: cannot write: {}{}", path,
                                                       std::strerror(errno), disk_advice(errno)));
  }
}

bool has_entries(const std::string& folder) {
  std::error_code code;
  return fs::directory_iterator(folder, code) != fs::directory_iterator() && !code;
}

}  // namespace

RunDir::RunDir(const std::string& path) : path_(path) {
  CheckpointFiles().create_folders(path);
  const std::string lock_path = path + "/.lock";
  lock_ = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) {
    throw ops::Error(ops::ExitCode::kDisk, fmt::format("{}: cannot open: {}{}", lock_path,
                                                       std::strerror(errno), disk_advice(errno)));
  }
  try {
    Holder holder = read_holder(lock_);
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        throw ops::Error(
            ops::ExitCode::kConfig,
            fmt::format("{}: run folder already in use by pid {} on host {}; wait for it, "
                        "stop it, or choose another run.dir",
                        path, holder.pid, holder.host));
      }
      throw ops::Error(
          ops::ExitCode::kDisk,
          fmt::format("{}: cannot lock: {}; choose a run.dir on a file system with locks",
                      lock_path, std::strerror(errno)));
    }
    holder = read_holder(lock_);  // what the previous holder left, now that it is gone
    restart_count_ = holder.starts;
    write_holder(lock_, lock_path,
                 {.pid = ::getpid(), .host = host_name(), .starts = restart_count_ + 1});
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

RunDir::~RunDir() { ::close(lock_); }

void RunDir::require_fresh() const {
  const bool has_checkpoints = has_entries(checkpoints());
  std::error_code ignored;
  if (!has_checkpoints && !fs::exists(metrics_jsonl(), ignored)) return;
  throw ops::Error(
      ops::ExitCode::kConfig,
      fmt::format("{}: run.resume=never, but the folder holds {} of an earlier run; choose "
                  "another run.dir, or run.resume=auto to continue that run",
                  path_, has_checkpoints ? "checkpoints" : "metrics"));
}

void RunDir::write_config(std::string_view toml) const {
  CheckpointFiles().replace_file(config_toml(), toml);
}

void RunDir::write_recipe(std::string_view toml) const {
  CheckpointFiles().replace_file(recipe_toml(), toml);
}

bool has_exit_reason(const std::string& folder) {
  std::error_code ignored;
  return fs::exists(exit_reason_of(folder), ignored);
}

void write_exit_reason(const std::string& folder, const ExitReason& reason) {
  CheckpointFiles().replace_file(exit_reason_of(folder), to_json(reason));
}

void RunDir::remove_exit_reason() const { CheckpointFiles().remove_tree(exit_reason()); }

}  // namespace qstep::trainer
