// The trace of a run (timing.trace_first, timing.trace_steps): when it begins and ends, the clock
// that the ranks share, and what other threads and what lies between the steps add to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/prefetcher.h"
#include "trainer/base/durable_files.h"
#include "trainer/config/config.h"
#include "trainer/run/trace_file.h"
#include "trainer/step/trainer.h"
#include "trainer/timing/collective_times.h"

namespace qstep::trainer {

class RunTrace {
 public:
  // All that is given outlives this. `observer` (may be null) hears of the world's collectives at
  // any time; `trainer` has done the steps up to steps_done, behind which the file of an earlier
  // start is cut. Error (disk).
  RunTrace(const Config& config, const Trainer& trainer, std::vector<MemoryRow> memory,
           parallel::CollectiveObserver* observer, int64_t steps_done);

  bool traces(int64_t step) const { return step >= first_ && step < first_ + n_steps_; }

  // Ahead of every step, and behind the last one of this process: all ranks together, and no
  // collective is under way. They write what is known since the last time.
  void ahead_of(int64_t step);
  void finish() {
    if (file_) write();
  }
  // Behind a step that is traced.
  void step(int64_t step, const Timeline& timeline);

  // What follows notes nothing ahead of the first traced step and behind the last.

  void note(Lane lane, std::string_view name, const TimeRange& when, std::string_view of = {});
  // For the thread that reads batches.
  void batch_read(const data::BatchRead& read);
  // A save of this step, f(hook), and its parts: each from one call of the hook to the next.
  void save(int64_t step, const std::function<void(const StepHook&)>& f);

 private:
  struct Slice {
    Lane lane;
    std::string name, of;
    TimeRange when;
  };

  void begin();
  void write();
  void count_memory(int64_t at_ns);

  int64_t first_, n_steps_;
  std::string path_;
  const Trainer& trainer_;
  std::vector<MemoryRow> memory_;
  parallel::CollectiveObserver* observer_;
  CollectiveTimes collectives_;
  std::optional<int64_t> origin_;  // of what was kept of the file
  int64_t start_;                  // the first step that this process may trace
  std::unique_ptr<TraceFile> file_;
  int64_t written_ns_ = 0;  // up to here

  std::atomic<bool> noting_{false};
  std::mutex mutex_;
  std::vector<Slice> slices_;
};

}  // namespace qstep::trainer
