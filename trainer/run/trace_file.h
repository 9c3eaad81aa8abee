// trace/rank00000.json: what one rank did in the traced steps, in Chrome's trace event format,
// which Perfetto and chrome://tracing open. trainer/timing/README.md documents the events.
//
// The file is one JSON array, an event a line. Events are collected in memory and written behind
// the steps; each write puts the end of the array in the place of the one before, so that the file
// is whole in between. What a kill may leave, where it falls into a write, is an array without its
// end, which the format allows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "trainer/base/intervals.h"
#include "trainer/base/json_lines.h"

namespace qstep::trainer {

// Threads of the picture; tid in the file.
enum class Lane : uint8_t { kMain = 1, kCommunication, kLoader, kCheckpoint };

// Steady clock to the clock of the trace, which counts from `origin_unix_ns`.
struct TraceClock {
  int64_t origin_unix_ns = 0;
  int64_t offset_ns = 0;  // added to a time of the steady clock

  // us, as the format wants them; three decimals are exact.
  double us(int64_t steady_ns) const { return static_cast<double>(steady_ns + offset_ns) / 1e3; }
};

// The category of a step's slice, whose argument "step" says which.
inline constexpr std::string_view kStepCategory = "step";

// "<folder>/trace/rank00000.json"
std::string trace_path(const std::string& folder, int rank);

// Drops what the file of one rank says of steps behind last_step, the whole file when nothing is
// left. Returns the origin of its clock; none without a file.
std::optional<int64_t> keep_trace(const std::string& path, int64_t last_step);
// The same for ranks first_rank, first_rank + 1, ..., which write theirs no more.
void drop_traces(const std::string& folder, int first_rank, int64_t last_step);

class TraceFile {
 public:
  // Appends to the file, which may be new, in a folder that is there. Error (disk).
  TraceFile(const std::string& path, int rank, const std::string& host, const TraceClock& clock);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  // Something that took a while: put(...) its arguments, then close().
  JsonText& open_slice(Lane lane, std::string_view name, std::string_view category,
                       const TimeRange& when);
  // Values of a moment, drawn one on top of the other: put(...) them, then close().
  JsonText& open_counter(std::string_view name, int64_t at_ns);
  void close();
  // An arrow begins or ends in the slice of the lane that runs at this time; the id joins the two.
  void flow_begin(Lane lane, uint64_t id, int64_t at_ns) { flow('s', lane, id, at_ns); }
  void flow_end(Lane lane, uint64_t id, int64_t at_ns) { flow('f', lane, id, at_ns); }

  // Appends what was collected. Error (disk).
  void write();

 private:
  void open(char kind, std::string_view name, int lane);
  void name_lanes(const std::string& host);
  void flow(char kind, Lane lane, uint64_t id, int64_t at_ns);

  std::string path_;
  int pid_;
  TraceClock clock_;
  int fd_ = -1;
  int64_t end_ = 0;  // where the next event goes; 0: there is none yet
  JsonText events_;
};

}  // namespace qstep::trainer
