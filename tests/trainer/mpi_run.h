// Runs of the qstep executable on several ranks under mpirun, as people start them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace qstep::trainer::testing {

using Words = std::vector<std::string>;

// Who ends the other ranks when one has ended: they themselves, or mpirun, as it does in real life
// a moment later and with SIGKILL. The exit codes of single ranks are known in the former case
// only.
enum class EndedBy : uint8_t { kThemselves, kMpirun };

struct RankStart {
  Words words;         // behind "qstep"
  std::string folder;  // working folder; empty: the test's
};

class MpiRun {
 public:
  // `notes` becomes a folder of this run, for what rank_parent.cpp leaves there.
  MpiRun(const std::string& notes, std::vector<RankStart> ranks,
         EndedBy ended_by = EndedBy::kThemselves);
  MpiRun(const std::string& notes, int n_ranks, const Words& words,
         EndedBy ended_by = EndedBy::kThemselves)
      : MpiRun(notes, std::vector<RankStart>(static_cast<size_t>(n_ranks), {words, ""}), ended_by) {
  }
  ~MpiRun();  // leaves no process behind
  MpiRun(const MpiRun&) = delete;
  MpiRun& operator=(const MpiRun&) = delete;

  int size() const { return size_; }
  pid_t mpirun() const { return mpirun_; }
  // 0 when the rank never begins.
  pid_t pid(int rank);
  // Nothing happens when the rank has ended.
  void signal(int rank, int number);

  // Waits for the condition; false when mpirun ends or the deadline passes before it holds.
  template <class F>
  bool wait_for(F&& condition) {
    const auto deadline = Clock::now() + kDeadline;
    while (!condition()) {
      if (ended() || Clock::now() > deadline) return condition();
      std::this_thread::sleep_for(kPause);
    }
    return true;
  }
  // The exit code of mpirun; nothing when it has to be ended because the deadline passed.
  std::optional<int> wait();
  // Of a rank: its exit code, or 128 + signal; nothing when it does not end before the deadline.
  std::optional<int> wait_code(int rank);
  // Of every rank; -1 for those that do not end.
  std::vector<int> wait_codes();

  std::string out(int rank) const { return note("out", rank); }
  std::string err(int rank) const { return note("err", rank); }
  // The lines of all ranks' stderr that tell an error.
  std::vector<std::string> error_lines() const;
  // All output, for the messages of a test.
  std::string log() const;

  // Whether every process is gone, a moment after the end, and what MPI kept in /dev/shm with them.
  bool left_nothing();

 private:
  using Clock = std::chrono::steady_clock;
  // Far beyond what a run takes on a loaded machine.
  static constexpr std::chrono::seconds kDeadline{250};
  static constexpr std::chrono::milliseconds kPause{1};

  bool ended();
  std::string note(const std::string& kind, int rank) const;

  std::string notes_;
  int size_;
  pid_t mpirun_ = 0;
  std::optional<int> code_;  // of mpirun
};

}  // namespace qstep::trainer::testing
