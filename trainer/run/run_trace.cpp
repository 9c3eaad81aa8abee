#include "trainer/run/run_trace.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <sstream>
#include <utility>

#include "trainer/base/exit_reason.h"
#include "trainer/run/trace_events.h"

namespace qstep::trainer {

namespace {

int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

int64_t steady_ns(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// Of this process, now.
int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// All ranks leave a barrier at the same time, but for what waking up takes, which is why there are
// several of them: the median says what to add to this rank's steady clock to have the first one's.
TraceClock common_clock(parallel::Comm& world, std::optional<int64_t> origin_unix_ns) {
  constexpr size_t kBarriers = 15;
  std::array<int64_t, kBarriers> left{};
  for (int64_t& time : left) {
    world.wait(world.barrier());
    time = Timeline::now_ns();
  }
  const int64_t now_steady = Timeline::now_ns(), now = unix_ns();
  std::istringstream told(parallel::broadcast_text(
      world,
      fmt::format("{} {} {}", origin_unix_ns.value_or(now), now - now_steady, fmt::join(left, " ")),
      0));
  int64_t origin = 0, unix_less_steady = 0;
  told >> origin >> unix_less_steady;
  for (int64_t& time : left) {
    int64_t of_first = 0;
    told >> of_first;
    time = of_first - time;
  }
  const auto median = left.begin() + kBarriers / 2;
  std::nth_element(left.begin(), median, left.end());
  return {.origin_unix_ns = origin, .offset_ns = *median + unix_less_steady - origin};
}

}  // namespace

RunTrace::RunTrace(const Config& config, const Trainer& trainer, std::vector<MemoryRow> memory,
                   parallel::CollectiveObserver* observer, int64_t steps_done)
    : first_(config.timing.trace_first),
      n_steps_(config.timing.trace_steps),
      path_(trace_path(config.run.dir, trainer.groups().hosts().world().rank())),
      trainer_(trainer),
      memory_(std::move(memory)),
      observer_(observer),
      collectives_(observer),
      origin_(keep_trace(path_, steps_done)),
      start_(steps_done + 1) {}

void RunTrace::ahead_of(int64_t step) {
  if (file_) {
    write();
    if (traces(step)) return;
    noting_ = false;
    trainer_.groups().observe(observer_);
    file_.reset();
  } else if (traces(step)) {
    begin();
  }
}

void RunTrace::begin() {
  parallel::Comm& world = trainer_.groups().hosts().world();
  const TraceClock clock = common_clock(world, origin_);
  CheckpointFiles().create_folders(parent_folder(path_));
  file_ = std::make_unique<TraceFile>(path_, world.rank(), host_name(), clock);
  trainer_.groups().observe(&collectives_);
  noting_ = true;
  written_ns_ = Timeline::now_ns();
  count_memory(written_ns_);
}

void RunTrace::step(int64_t step, const Timeline& timeline) {
  trace_step(*file_, step, timeline);
  count_memory(timeline.step().end);
}

void RunTrace::write() {
  const int64_t now = Timeline::now_ns();
  trace_collectives(*file_, collectives_.take({written_ns_, now}), trainer_.groups().by_name(),
                    start_);
  written_ns_ = now;
  std::vector<Slice> slices;
  {
    const std::lock_guard lock(mutex_);
    slices.swap(slices_);
  }
  // The parts of a save are noted ahead of it, and outer slices go first.
  std::stable_sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return a.when.begin != b.when.begin ? a.when.begin < b.when.begin : a.when.end > b.when.end;
  });
  for (const Slice& slice : slices) {
    JsonText& args = file_->open_slice(slice.lane, slice.name, "host", slice.when);
    if (!slice.of.empty()) args.put("of", slice.of);
    file_->close();
  }
  file_->write();
}

void RunTrace::note(Lane lane, std::string_view name, const TimeRange& when, std::string_view of) {
  if (!noting_) return;
  const std::lock_guard lock(mutex_);
  slices_.push_back({lane, std::string(name), std::string(of), when});
}

void RunTrace::batch_read(const data::BatchRead& read) {
  if (!noting_) return;
  note(Lane::kLoader, "read batch", {steady_ns(read.begin), steady_ns(read.end)},
       fmt::format("step {}, micro-batch {}", read.step + 1, read.micro));
}

void RunTrace::save(int64_t step, const std::function<void(const StepHook&)>& f) {
  const int64_t begin = Timeline::now_ns();
  int64_t since = begin;
  std::string part, path;
  const auto end_part = [&] {
    if (!part.empty()) note(Lane::kCheckpoint, part, {since, Timeline::now_ns()}, path);
    since = Timeline::now_ns();
  };
  f([&](std::string_view next, const std::string& of) {
    end_part();
    part = next;
    path = of;
    return 0;
  });
  end_part();
  note(Lane::kCheckpoint, fmt::format("save step {}", step), {begin, Timeline::now_ns()});
}

void RunTrace::count_memory(int64_t at_ns) {
  file_->open_counter("resident memory", at_ns).put("bytes", resident_bytes());
  file_->close();
  JsonText& owners = file_->open_counter("memory of training by owner", at_ns);
  for (const MemoryRow& row : memory_) owners.put(row.owner, row.bytes);
  file_->close();
}

}  // namespace qstep::trainer
