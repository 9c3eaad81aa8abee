// The communication thread: the only one of a process that calls MPI, from MPI_Init_thread to
// MPI_Finalize. It takes collectives from a queue, in order, while the caller computes.
//
// It never enters a call of MPI that blocks: those spin, on a core that others compute on. It tests
// what is under way, and sleeps in between unless the caller waits.
//
// Collectives run one after the other. Sends and receives that follow each other run together, as
// two ranks that send to each other would otherwise wait for ever.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "parallel/collective_observer.h"
#include "parallel/comm.h"
#include "parallel/mpi_collectives.h"
#include "parallel/mpi_command.h"

namespace qstep::parallel {

class MpiThread {
 public:
  // Returns when MPI has begun. An Error where a process begins a second time.
  MpiThread();
  // Does what is still in the queue, waits for the other ranks to come here too, and ends MPI.
  // After a failure or abandon() it does none of this: MPI may be ended by leaving the process
  // only, with _exit, as its own exit handlers may wait for other ranks.
  ~MpiThread();
  MpiThread(const MpiThread&) = delete;
  MpiThread& operator=(const MpiThread&) = delete;

  // Known from the start.
  int world_rank() const { return world_rank_; }
  int world_size() const { return world_size_; }

  // Below it, all group numbers were used. For split(), by one thread at a time.
  int next_group_id() const { return next_group_id_; }
  void set_next_group_id(int id) { next_group_id_ = id; }

  // From one thread at a time. `command` and the bounds are copied; the tensors and the group must
  // live until the collective is done.
  Comm::Ticket hand_over(const MpiCommand& command, Bounds bounds);
  // As Comm::wait().
  void wait(Comm::Ticket ticket);
  // Returns when the collective is done or never will be.
  void drain(Comm::Ticket ticket);
  // Ends the thread without waiting for anybody: what is under way fails.
  void abandon();

  void observe(CollectiveObserver* observer);
  CommTimes times() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Entry {
    explicit Entry(Traffic& traffic) : messages(traffic) {}
    MpiCommand command;
    Messages messages;  // of a send or receive
  };
  using Queue = std::list<Entry>;

  static double ms(Clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
  }

  // On the communication thread (mpi_thread_loop.cpp).
  void run();
  void begin_mpi();
  void serve();
  void end_mpi();
  bool take_next();
  bool sleep_until_handed_over();
  void start_exchange(Entry& entry);
  bool test_exchanges();
  void until_done(Messages& messages);
  void check_alive();
  void pause_between_polls(bool progress);
  void finish(Queue& entries);
  void fail(const Failure& failure);

  static CollectiveRecord record(const MpiCommand& command);
  void tell_entered(const MpiCommand& command);
  void tell_left(const MpiCommand& command);

  int world_rank_ = 0;
  int world_size_ = 1;
  int next_group_id_ = 1;  // the world is 0
  Traffic traffic_;

  // Of the communication thread alone.
  std::unique_ptr<MpiCollectives> collectives_;
  Queue taken_;      // the one collective that runs
  Queue exchanges_;  // sends and receives under way, in order
  Clock::duration pause_{};
  Clock::time_point busy_since_;

  std::mutex observer_mutex_;
  CollectiveObserver* observer_ = nullptr;

  mutable std::mutex mutex_;
  std::condition_variable work_;      // for the communication thread
  std::condition_variable progress_;  // for who waits
  Queue queue_;                       // handed over, not begun
  Queue spare_;                       // entries to use again
  Comm::Ticket last_ticket_ = 0;
  Comm::Ticket done_ticket_ = 0;
  bool begun_ = false;
  bool stop_ = false;
  std::optional<Failure> failure_;
  double busy_ms_ = 0;
  std::atomic<int> n_waiting_{0};  // callers that stand still
  std::atomic<bool> abandoned_{false};

  std::thread thread_;
};

}  // namespace qstep::parallel
