// What the communication thread does: takes from the queue, polls, sleeps, tells the observer.
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <utility>

#include "parallel/mpi_thread.h"

namespace qstep::parallel {

namespace {

using std::chrono::microseconds;

// Between two polls while nobody waits: from short against the 100 us and more that the pieces of
// a collective take, so that a transfer hardly stands still, to long enough that polling costs a
// core that computes 1 % of its time.
constexpr microseconds kShortestPause{20};
constexpr microseconds kLongestPause{100};
// The kernel may wake a thread that much late, in order to wake several at once; its default, 50
// us, is as long as the pauses.
constexpr unsigned long kTimerSlackNs = 1000;

}  // namespace

void MpiThread::run() {
  pthread_setname_np(pthread_self(), "qstep-mpi");
  prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  try {
    begin_mpi();
    serve();
    end_mpi();
  } catch (const ops::Error& error) {
    fail({error.code(), error.what()});
  } catch (const std::exception& error) {
    fail({ops::ExitCode::kInternal, error.what()});
  }
}

void MpiThread::begin_mpi() {
  int begun = 0, ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  ops::check(begun == 0 && ended == 0, "a process can be in one MPI world, once");
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_FUNNELED) {
    throw ops::Error(ops::ExitCode::kConfig,
                     "this MPI library cannot be used in a program with threads "
                     "(MPI_THREAD_FUNNELED): use one that was built with thread support");
  }
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &world_size_), "MPI_Comm_size");
  collectives_ = std::make_unique<MpiCollectives>(
      traffic_, [this](Messages& messages) { until_done(messages); });
  const std::lock_guard lock(mutex_);
  begun_ = true;
  progress_.notify_all();
}

void MpiThread::serve() {
  while (sleep_until_handed_over()) {
    busy_since_ = Clock::now();
    pause_ = kShortestPause;
    while (take_next()) {
      if (taken_.empty()) {
        pause_between_polls(test_exchanges());
        continue;
      }
      const MpiCommand& command = taken_.front().command;
      tell_entered(command);
      collectives_->run(command);
      tell_left(command);
      finish(taken_);
    }
  }
}

// Ranks that end early wait here, where a failure of another can still end that: MPI_Finalize would
// block.
void MpiThread::end_mpi() {
  check_alive();
  MpiGroup world{.name = std::string(kHostsGroup), .members = {}, .rank = world_rank_, .id = 0};
  for (int r = 0; r < world_size_; ++r) world.members.push_back(r);
  MpiCommand barrier;
  barrier.group = &world;
  collectives_->run(barrier);
  check_mpi(MPI_Finalize(), "MPI_Finalize");
}

// False when there will be no more.
bool MpiThread::sleep_until_handed_over() {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [&] { return !queue_.empty() || stop_ || abandoned_; });
  return !queue_.empty();
}

// Takes what may begin: all sends and receives at the front of the queue; the collective there if
// nothing else is under way. False when nothing is.
bool MpiThread::take_next() {
  Queue starting;
  {
    const std::lock_guard lock(mutex_);
    while (!queue_.empty() && is_point_to_point(queue_.front().command.operation)) {
      starting.splice(starting.end(), queue_, queue_.begin());
    }
    if (starting.empty() && exchanges_.empty() && !queue_.empty()) {
      taken_.splice(taken_.end(), queue_, queue_.begin());
    }
  }
  for (Entry& entry : starting) start_exchange(entry);
  exchanges_.splice(exchanges_.end(), starting);
  return !taken_.empty() || !exchanges_.empty();
}

void MpiThread::start_exchange(Entry& entry) {
  const MpiCommand& c = entry.command;
  tell_entered(c);
  // A receive takes what a send sent: one kind of message.
  const auto kind = static_cast<int>(Operation::kSend);
  if (c.operation == Operation::kSend) {
    entry.messages.send(*c.group, c.peer, kind, c.x.data, c.x.bytes());
  } else {
    entry.messages.receive(*c.group, c.peer, kind, c.x.data, c.x.bytes());
  }
}

// Whether any of them moved. They are done in order, as their tickets are.
bool MpiThread::test_exchanges() {
  int n_done = 0;
  for (Entry& entry : exchanges_) n_done += entry.messages.test();
  Queue done;
  while (!exchanges_.empty() && exchanges_.front().messages.done()) {
    tell_left(exchanges_.front().command);
    done.splice(done.end(), exchanges_, exchanges_.begin());
  }
  finish(done);
  return n_done > 0;
}

void MpiThread::until_done(Messages& messages) {
  pause_ = kShortestPause;
  while (!messages.done()) pause_between_polls(messages.test() > 0);
}

void MpiThread::check_alive() {
  if (abandoned_) {
    throw ops::Error(ops::ExitCode::kInternal,
                     "this rank leaves: its collectives were given up before they were done");
  }
  const std::lock_guard lock(observer_mutex_);
  const auto failure = observer_ == nullptr ? std::nullopt : observer_->failure();
  if (failure) throw ops::Error(failure->code, failure->text);
}

void MpiThread::pause_between_polls(bool progress) {
  check_alive();
  if (progress) {
    pause_ = kShortestPause;
  } else if (n_waiting_ > 0) {
    sched_yield();
  } else {
    std::unique_lock lock(mutex_);
    work_.wait_for(lock, pause_, [&] { return n_waiting_ > 0 || abandoned_; });
    pause_ = std::min<Clock::duration>(pause_ * 3 / 2, kLongestPause);
  }
}

void MpiThread::finish(Queue& entries) {
  if (entries.empty()) return;
  const Clock::time_point now = Clock::now();
  const std::lock_guard lock(mutex_);
  done_ticket_ += entries.size();
  spare_.splice(spare_.end(), entries);
  busy_ms_ += ms(now - std::exchange(busy_since_, now));
  if (n_waiting_ > 0) progress_.notify_all();
}

void MpiThread::fail(const Failure& failure) {
  // Messages may still arrive in the staging memory, so it is never freed: the process ends soon.
  static_cast<void>(collectives_.release());
  const std::lock_guard lock(mutex_);
  failure_ = failure;
  progress_.notify_all();
}

// ---- what the observer hears
// ----------------------------------------------------------------------

CollectiveRecord MpiThread::record(const MpiCommand& c) {
  return {.group = c.group->name,
          .sequence = c.sequence,
          .operation = name(c.operation),
          .bytes = c.x.bytes(),
          .dtype = c.x.dtype,
          .peer = is_point_to_point(c.operation) ? c.peer : -1};
}

void MpiThread::tell_entered(const MpiCommand& command) {
  const std::lock_guard lock(observer_mutex_);
  if (observer_ != nullptr) observer_->entered(record(command));
}

void MpiThread::tell_left(const MpiCommand& command) {
  const std::lock_guard lock(observer_mutex_);
  if (observer_ != nullptr) observer_->left(record(command));
}

}  // namespace qstep::parallel
