// The caller's side: the queue, waiting, the life of the thread. The other is mpi_thread_loop.cpp.
#include "parallel/mpi_thread.h"

#include <pthread.h>

#include <csignal>
#include <utility>

namespace qstep::parallel {

namespace {

// Signals are for the threads that know what to do with them; new threads inherit the mask, those
// that MPI starts included.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

MpiThread::MpiThread() {
  {
    const BlockSignals blocked;
    thread_ = std::thread([this] { run(); });
  }
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [&] { return begun_ || failure_; });
  if (!failure_) return;
  lock.unlock();
  thread_.join();
  throw ops::Error(failure_->code, failure_->text);
}

MpiThread::~MpiThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    ++n_waiting_;
  }
  work_.notify_one();
  thread_.join();
}

Comm::Ticket MpiThread::hand_over(const MpiCommand& command, Bounds bounds) {
  const std::lock_guard lock(mutex_);
  if (spare_.empty()) spare_.emplace_back(traffic_);
  MpiCommand& slot = spare_.front().command;
  // The vector of the slot keeps its memory.
  std::vector<int64_t> kept = std::move(slot.bounds);
  slot = command;
  kept.assign(bounds.begin(), bounds.end());
  slot.bounds = std::move(kept);
  queue_.splice(queue_.end(), spare_, spare_.begin());
  work_.notify_one();
  return ++last_ticket_;
}

void MpiThread::wait(Comm::Ticket ticket) {
  std::unique_lock lock(mutex_);
  ops::check(ticket <= last_ticket_, "wait: no such ticket");
  if (done_ticket_ < ticket && !failure_) {
    ++n_waiting_;
    work_.notify_one();
    progress_.wait(lock, [&] { return done_ticket_ >= ticket || failure_; });
    --n_waiting_;
  }
  if (failure_) throw ops::Error(failure_->code, failure_->text);
}

void MpiThread::drain(Comm::Ticket ticket) {
  std::unique_lock lock(mutex_);
  ++n_waiting_;
  work_.notify_one();
  progress_.wait(lock, [&] { return done_ticket_ >= ticket || failure_; });
  --n_waiting_;
}

void MpiThread::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  work_.notify_one();
}

void MpiThread::observe(CollectiveObserver* observer) {
  const std::lock_guard lock(observer_mutex_);
  observer_ = observer;
}

CommTimes MpiThread::times() const {
  const std::lock_guard lock(mutex_);
  return {.busy_ms = busy_ms_,
          .bytes_sent = traffic_.bytes_sent,
          .messages_sent = traffic_.messages_sent};
}

}  // namespace qstep::parallel
