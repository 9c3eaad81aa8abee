// Ranks that are processes, to be killed and stopped: forked by a test, each with a watchdog, and
// with collectives that are a counter in shared memory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/watchdog.h"

namespace qstep::test {

inline constexpr int kMaxRanks = 4;

struct SharedState;

// What a rank's main thread has.
class RankContext {
 public:
  RankContext(SharedState& shared, int rank, int size)
      : shared_(shared), rank_(rank), size_(size) {}
  int rank() const { return rank_; }
  parallel::Watchdog& watch() { return *watch_; }
  // reduce_scatter number `sequence` of the group "world", 4096 bytes of BF16. Throws as wait()
  // does; the last rank to come lets all go on.
  void collective(uint64_t sequence);
  // Raises one of a few flags that the test sees.
  void mark(int flag);

 private:
  friend class RankProcesses;

  SharedState& shared_;
  int rank_, size_;
  std::unique_ptr<parallel::Watchdog> watch_;
};

// Limits of a second, for hangs.
parallel::WatchdogOptions fast_options();
// Limits that no slow machine reaches, for all else.
parallel::WatchdogOptions patient_options();

struct RankEnd {
  bool ended = false;    // before the deadline; otherwise it has been killed
  int code = -1;         // exit code; 128 + signal
  std::string what;      // the error that its main thread ended on, empty without
  int cause = 0;         // of the verdict
  bool reports = false;  // i_report() at the end
  std::string stderr_text;
};

class RankProcesses {
 public:
  // A body is what the main thread of rank context.rank() does between start and goodbye(). An
  // error ends the rank as a program would: farewell(), then its code.
  using Body = std::function<void(RankContext&)>;
  RankProcesses(int size, const parallel::WatchdogOptions& options, const Body& body);
  ~RankProcesses();  // leaves no process behind
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;

  pid_t pid(int rank) const { return ranks_[static_cast<size_t>(rank)].pid; }
  void signal(int rank, int number) const;
  // Returns when the rank is stopped, or false.
  bool wait_until_stopped(int rank) const;
  RankEnd wait(int rank);
  bool marked(int flag) const;
  // Whether the last words of the rank were called.
  bool had_last_words(int rank) const;
  // "rank 2 (host, pid 1234)"
  std::string name(int rank) const;

 private:
  struct Process {
    pid_t pid = 0;
    int stderr_fd = -1;
    bool reaped = false;
  };
  [[noreturn]] void run_rank(int rank, const parallel::WatchdogOptions& options, const Body& body);

  int size_;
  SharedState* shared_;
  std::vector<Process> ranks_;
};

}  // namespace qstep::test
