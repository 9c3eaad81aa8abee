#include "trainer/run/trace_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "ops/error.h"
#include "trainer/base/durable_files.h"

namespace qstep::trainer {

namespace {

constexpr std::string_view kBegin = "[\n", kBetween = ",\n", kEnd = "\n]\n";
constexpr std::string_view kClockEvent = "clock_origin", kOriginKey = "unix_ns";

constexpr std::array<std::pair<Lane, std::string_view>, 4> kLaneNames{
    {{Lane::kMain, "step"},
     {Lane::kCommunication, "communication"},
     {Lane::kLoader, "loader"},
     {Lane::kCheckpoint, "checkpoint"}}};

[[noreturn]] void fail(const std::string& path, const char* what, int code) {
  throw ops::Error(ops::ExitCode::kDisk, fmt::format("{}: cannot {}: {}{}", path, what,
                                                     std::strerror(code), disk_advice(code)));
}

}  // namespace

std::string trace_path(const std::string& folder, int rank) {
  return fmt::format("{}/trace/rank{:05}.json", folder, rank);
}

std::optional<int64_t> keep_trace(const std::string& path, int64_t last_step) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::string kept;
  std::optional<int64_t> origin;
  bool any_step = false;
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with(',')) line.pop_back();
    const auto event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!event.is_object()) continue;  // the brackets, and what a kill cut
    const auto args = event.value("args", nlohmann::json::object());
    if (event.value("cat", "") == kStepCategory) {
      if (args.value("step", int64_t{0}) > last_step) break;
      any_step = true;
    }
    if (event.value("name", "") == kClockEvent) origin = args.value(kOriginKey, int64_t{0});
    kept += (kept.empty() ? "" : std::string(kBetween)) + line;
  }
  if (any_step) {
    CheckpointFiles().replace_file(path, std::string(kBegin) + kept + std::string(kEnd));
  } else {
    CheckpointFiles().remove_tree(path);
    origin.reset();
  }
  return origin;
}

void drop_traces(const std::string& folder, int first_rank, int64_t last_step) {
  std::error_code none;
  for (int rank = first_rank; std::filesystem::exists(trace_path(folder, rank), none); ++rank) {
    keep_trace(trace_path(folder, rank), last_step);
  }
}

TraceFile::TraceFile(const std::string& path, int rank, const std::string& host,
                     const TraceClock& clock)
    : path_(path), pid_(rank + 1), clock_(clock) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path, "open for writing", errno);
  const int64_t size = ::lseek(fd_, 0, SEEK_END);
  end_ = std::max(int64_t{0}, size - static_cast<int64_t>(kEnd.size()));
  name_lanes(host);
}

TraceFile::~TraceFile() { ::close(fd_); }

// pid 0 and tid 0 are the idle task to Perfetto.
void TraceFile::name_lanes(const std::string& host) {
  const auto describe = [&](int lane, std::string_view what, std::string_view key,
                            const auto& value) {
    open('M', what, lane);
    events_.open_object("args");
    events_.put(key, value);
    close();
  };
  describe(0, "process_name", "name", fmt::format("rank {} ({})", pid_ - 1, host));
  describe(0, "process_sort_index", "sort_index", pid_ - 1);
  describe(0, kClockEvent, kOriginKey, clock_.origin_unix_ns);
  for (const auto& [lane, name] : kLaneNames) {
    describe(static_cast<int>(lane), "thread_name", "name", name);
    describe(static_cast<int>(lane), "thread_sort_index", "sort_index", static_cast<int>(lane));
  }
}

void TraceFile::open(char kind, std::string_view name, int lane) {
  if (!events_.text().empty()) events_.separate(kBetween);
  events_.open();
  events_.put("ph", std::string_view(&kind, 1));
  events_.put("name", name);
  events_.put("pid", pid_);
  if (lane > 0) events_.put("tid", lane);
}

JsonText& TraceFile::open_slice(Lane lane, std::string_view name, std::string_view category,
                                const TimeRange& when) {
  open('X', name, static_cast<int>(lane));
  events_.put("cat", category);
  events_.put("ts", clock_.us(when.begin));
  events_.put("dur", static_cast<double>(when.length()) / 1e3);
  events_.open_object("args");
  return events_;
}

JsonText& TraceFile::open_counter(std::string_view name, int64_t at_ns) {
  open('C', name, 0);
  events_.put("ts", clock_.us(at_ns));
  events_.open_object("args");
  return events_;
}

void TraceFile::close() {
  events_.close_object();
  events_.close_object();
}

void TraceFile::flow(char kind, Lane lane, uint64_t id, int64_t at_ns) {
  open(kind, "collective", static_cast<int>(lane));
  events_.put("cat", "flow");
  events_.put("id", fmt::format("{:#x}", id));
  if (kind == 'f') events_.put("bp", "e");  // in the slice around it, not in the next one
  events_.put("ts", clock_.us(at_ns));
  events_.close_object();
}

void TraceFile::write() {
  if (events_.text().empty()) return;
  events_.separate(kEnd);
  const std::string text = std::string(end_ == 0 ? kBegin : kBetween) + std::string(events_.text());
  events_.clear();
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::pwrite(fd_, text.data() + done, text.size() - done,
                               static_cast<off_t>(end_ + static_cast<int64_t>(done)));
    if (n <= 0) fail(path_, "write events", n < 0 ? errno : ENOSPC);
    done += static_cast<size_t>(n);
  }
  end_ += static_cast<int64_t>(text.size() - kEnd.size());
}

}  // namespace qstep::trainer
