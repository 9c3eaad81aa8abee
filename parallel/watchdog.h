// Ends a run of several ranks well when one of them dies, fails, leaves or hangs.
//
// One thread per process tells rank 0 over the side channel where its rank stands. Rank 0 notices a
// connection that closes and a phase over its limit, finds out whose fault it is, and sends the
// verdict to all; when rank 0 itself is dead or stopped, the others see it by themselves. A verdict
// fails every collective (this is the observer of the world), so that wait() throws its text; a
// process whose main thread does not leave all the same is ended from here.
//
//   auto watch = Watchdog::start(*comm, {}, last_words);
//   world->observe(watch.get());
//   watch->enter_phase(Phase::kStep, step);
//   watch->goodbye();                     // the run is over; or, where an error ends this rank:
//   watch->farewell(code, error.what());
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "parallel/collective_log.h"
#include "parallel/collective_observer.h"
#include "parallel/comm.h"
#include "parallel/phase_limits.h"
#include "parallel/side_channel.h"
#include "parallel/standing.h"
#include "parallel/verdict.h"
#include "parallel/watchdog_hub.h"

namespace qstep::parallel {

struct WatchdogOptions {
  PhaseLimits limits;
  double connect_s = 60;  // until all ranks have joined the side channel
  double beat_s = 1;      // between two heartbeats, and between two looks at the limits
  double answer_s = 5;    // until a rank that does not answer counts as stopped
  double leave_s = 10;    // from the verdict until a process that still runs is ended
};

class Watchdog final : public CollectiveObserver {
 public:
  // Called on a thread of its own right before the process is ended from here, with the verdict or
  // the rank's own farewell: may write exit_reason.json, and has 5 s. The main thread may be
  // anywhere meanwhile.
  using LastWords = std::function<void(const Verdict&)>;

  // All ranks together, from their main threads. Throws Error (peer died) when not all join in
  // time.
  static std::unique_ptr<Watchdog> start(Comm& comm, const WatchdogOptions& options,
                                         LastWords last_words);

  Watchdog(SideChannel channel, const WatchdogOptions& options, LastWords last_words);
  // Without goodbye() or farewell() before, the other ranks see a death.
  ~Watchdog() override;
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // What follows is for the main thread.

  // The rank begins something. Entered again, a phase has its whole time again: the sign of life of
  // what is long.
  void enter_phase(Phase phase, int64_t step);

  // This rank ends on an error, and the others learn which. With kPeerDied or kHang, which failed
  // collectives throw, waits up to 2 s for the verdict that says why.
  void farewell(ops::ExitCode code, std::string_view text);

  // The run is over; returns when it is so on all ranks. Throws as check() does.
  void goodbye();

  // Throws Error with the code and the text of the verdict, if there is one: for long computations
  // between collectives.
  void check() const;

  // What follows is for any thread.

  std::optional<Verdict> verdict() const;

  // Whether this is the lowest rank that is left: it writes exit_reason.json and tells the user.
  // When rank 0 is dead, nobody can say who died with it: then the lowest one of every host.
  bool i_report() const;

  void entered(const CollectiveRecord& record) override { log_.entered(record); }
  void left(const CollectiveRecord& record) override { log_.left(record); }
  std::optional<Failure> failure() override;

 private:
  // watchdog_thread.cpp; all with the lock held.
  void run();
  std::vector<pollfd> poll(std::unique_lock<std::mutex>& lock);
  void handle_as_hub(const SideChannel::Event& event, double now_s);
  void handle_as_member(const SideChannel::Event& event, double now_s);
  void tick_as_hub(double now_s);
  void tick_as_member(double now_s);
  Standing standing(size_t n_collectives, double now_s) const;
  void beat(double now_s);
  void broadcast(uint8_t kind, std::string_view body);
  void send_farewell(ops::ExitCode code, std::string_view text);
  void propose(std::optional<Verdict> verdict);
  void adopt_proposed(double now_s);
  void wake();
  bool reports() const;

  const WatchdogOptions options_;
  const LastWords last_words_;
  const int rank_;
  CollectiveLog log_;
  std::atomic<bool> failed_{false};  // a verdict is there: failure() is asked without end

  mutable std::mutex mutex_;  // over all that follows
  std::condition_variable changed_;
  SideChannel channel_;
  Socket wake_;  // an eventfd
  PhaseClock clock_;
  std::optional<WatchdogHub> hub_;   // on rank 0
  std::optional<Verdict> proposed_;  // the best of what one look at the channel brings
  std::optional<Verdict> verdict_;
  std::optional<Verdict> own_end_;  // after farewell()
  std::optional<double> leave_by_s_;
  std::vector<bool> dead_;     // by rank; for all that is known here
  double asked_s_ = 0;         // by rank 0, last
  double told_phase_s_ = -1;   // in the last heartbeat: when the phase began,
  uint64_t told_version_ = 0;  // and the state of the log
  bool over_ = false;          // all ranks said goodbye
  bool stop_ = false;

  std::thread thread_;
};

}  // namespace qstep::parallel
