#include "tests/support/thread_comm.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include "tests/support/thread_collectives.h"

namespace qstep::test {
namespace {

using ops::Error;
using ops::ExitCode;
using ops::Tensor;
using parallel::Bounds;
using parallel::Comm;
using parallel::Reduce;
using Ticket = Comm::Ticket;

// The queues of all ranks, behind one mutex.
class World {
 public:
  explicit World(int n_ranks) : ranks_(static_cast<size_t>(n_ranks)) {}

  Ticket post(int rank, Operation operation) {
    const std::lock_guard lock(mutex_);
    throw_failure();
    Rank& own = at(rank);
    own.queue.push_back(std::move(operation));
    try {
      while (run_one()) changed_.notify_all();
    } catch (const Error& error) {
      fail(error);
    }
    throw_failure();
    return ++own.posted;
  }

  void wait(int rank, Ticket ticket) {
    std::unique_lock lock(mutex_);
    Rank& own = at(rank);
    own.awaited = ticket;
    fail_if_stuck();
    changed_.wait(lock, [&] { return own.done >= ticket || failure_; });
    own.awaited = 0;
    if (own.done < ticket) throw_failure();
  }

  // The rank makes no more calls.
  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    at(rank).gone = true;
    fail_if_stuck();
  }

 private:
  struct Rank {
    std::deque<Operation> queue;
    Ticket posted = 0;
    Ticket done = 0;
    Ticket awaited = 0;  // 0: not waiting
    bool gone = false;

    bool stands_still() const { return gone || done < awaited; }
  };

  Rank& at(int rank) { return ranks_[static_cast<size_t>(rank)]; }

  const Operation* front(int rank) {
    const std::deque<Operation>& queue = at(rank).queue;
    return queue.empty() ? nullptr : &queue.front();
  }

  void pop(int rank) {
    at(rank).queue.pop_front();
    ++at(rank).done;
  }

  // Runs an operation that is in front wherever it must be; false when there is none.
  bool run_one() {
    for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
      const Operation* own = front(rank);
      if (own == nullptr || own->kind == Collective::kReceive) continue;
      if (own->kind == Collective::kSend ? run_message_of(rank) : run_collective_of(*own)) {
        return true;
      }
    }
    return false;
  }

  bool run_message_of(int from) {
    const Operation& send = *front(from);
    const int to = send.peer;
    const Operation* receive = front(to);
    if (receive == nullptr || receive->kind != Collective::kReceive || receive->peer != from ||
        receive->group != send.group) {
      return false;
    }
    run_message(send, *receive);
    pop(from);
    pop(to);
    return true;
  }

  bool run_collective_of(const Operation& own) {
    std::vector<const Operation*> calls;
    for (const int rank : own.group) {
      calls.push_back(front(rank));
      if (calls.back() == nullptr || calls.back()->group != own.group) return false;
    }
    run_collective(calls);
    const std::vector<int> group = own.group;  // goes with the first pop
    for (const int rank : group) pop(rank);
    return true;
  }

  // Nobody can go on by itself: the last to notice tells all.
  void fail_if_stuck() {
    std::string waiting;
    std::optional<int> gone;
    for (int rank = 0; rank < static_cast<int>(ranks_.size()); ++rank) {
      if (!at(rank).stands_still()) return;
      if (at(rank).gone) {
        gone = gone.value_or(rank);
      } else {
        waiting += fmt::format("\n  rank {} waits for {}", rank, describe(*front(rank)));
      }
    }
    if (waiting.empty()) return;
    fail(gone ? Error(ExitCode::kPeerDied, fmt::format("rank {} has ended{}", *gone, waiting))
              : Error(ExitCode::kHang, "ranks wait for each other" + waiting));
  }

  void fail(const Error& error) {
    if (!failure_) failure_ = error;
    changed_.notify_all();
  }
  void throw_failure() const {
    if (failure_) throw Error(*failure_);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Rank> ranks_;
  std::optional<Error> failure_;  // of the first operation that failed; then all do
};

class ThreadComm final : public Comm {
 public:
  // `group`: ranks of the world; the caller is member number `rank`.
  ThreadComm(World& world, std::vector<int> group, int rank, std::string group_name = "world")
      : world_(world), group_(std::move(group)), rank_(rank), group_name_(std::move(group_name)) {}

  std::string_view name() const override { return "threads"; }
  std::string_view group() const override { return group_name_; }
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_.size()); }

  Ticket all_reduce(const Tensor& x, Reduce reduce) override {
    Operation operation = call(Collective::kAllReduce, x);
    operation.reduce = reduce;
    return post(std::move(operation));
  }
  Ticket reduce_scatter(const Tensor& x, Bounds bounds) override {
    return post(call_on_parts(Collective::kReduceScatter, x, bounds));
  }
  Ticket all_gather(const Tensor& x, Bounds bounds) override {
    return post(call_on_parts(Collective::kAllGather, x, bounds));
  }
  Ticket broadcast(const Tensor& x, int root) override {
    return post(call_with(Collective::kBroadcast, x, root));
  }
  Ticket all_to_all(const Tensor& out, const Tensor& in) override {
    ops::check(in.contiguous() && in.bytes() == out.bytes() && out.size() % size() == 0,
               "all_to_all: equal parts of equal tensors");
    Operation operation = call(Collective::kAllToAll, out);
    operation.in = in;
    return post(std::move(operation));
  }
  Ticket send(const Tensor& x, int to) override { return message(Collective::kSend, x, to); }
  Ticket receive(const Tensor& x, int from) override {
    return message(Collective::kReceive, x, from);
  }
  Ticket barrier() override { return post(call(Collective::kBarrier, {})); }
  void wait(Ticket ticket) override { world_.wait(world_rank(rank_), ticket); }
  parallel::CommTimes times() const override { return {}; }

  std::unique_ptr<Comm> split(int color, int key) override {
    const auto n_ranks = static_cast<size_t>(size());
    std::vector<int32_t> wishes(2 * n_ranks);  // color, key of each rank
    wishes[2 * static_cast<size_t>(rank_)] = color;
    wishes[2 * static_cast<size_t>(rank_) + 1] = key;
    std::vector<int64_t> bounds(n_ranks + 1);
    for (size_t r = 0; r <= n_ranks; ++r) bounds[r] = 2 * static_cast<int64_t>(r);
    wait(all_gather(ops::view(std::span(wishes)), bounds));

    std::vector<int> members;  // ranks of this group
    for (int r = 0; r < size(); ++r) {
      if (wishes[2 * static_cast<size_t>(r)] == color) members.push_back(r);
    }
    std::stable_sort(members.begin(), members.end(), [&](int a, int b) {
      return wishes[2 * static_cast<size_t>(a) + 1] < wishes[2 * static_cast<size_t>(b) + 1];
    });
    const auto own = std::find(members.begin(), members.end(), rank_);
    const auto position = static_cast<int>(own - members.begin());
    for (int& member : members) member = world_rank(member);
    return std::make_unique<ThreadComm>(world_, std::move(members), position,
                                        fmt::format("{}/{}:{}", group_name_, n_splits_++, color));
  }

 private:
  int world_rank(int rank) const { return group_[static_cast<size_t>(rank)]; }

  Operation call(Collective kind, const Tensor& x) const {
    ops::check(x.contiguous(), "a collective needs a contiguous tensor");
    Operation operation;
    operation.kind = kind;
    operation.group = group_;
    operation.x = x;
    return operation;
  }
  Operation call_on_parts(Collective kind, const Tensor& x, Bounds bounds) const {
    ops::check(bounds.size() == group_.size() + 1 && bounds.front() == 0 &&
                   bounds.back() == x.size() && std::is_sorted(bounds.begin(), bounds.end()),
               "bounds do not cut the tensor into a part per rank");
    Operation operation = call(kind, x);
    operation.bounds.assign(bounds.begin(), bounds.end());
    return operation;
  }
  Operation call_with(Collective kind, const Tensor& x, int rank) const {
    ops::check(rank >= 0 && rank < size(),
               fmt::format("no rank {} in a group of {}", rank, size()));
    Operation operation = call(kind, x);
    operation.peer = world_rank(rank);
    return operation;
  }
  Ticket message(Collective kind, const Tensor& x, int rank) {
    ops::check(rank != rank_, "a message to oneself");
    return post(call_with(kind, x, rank));
  }
  Ticket post(Operation operation) { return world_.post(world_rank(rank_), std::move(operation)); }

  World& world_;
  std::vector<int> group_;
  int rank_;
  std::string group_name_;
  int n_splits_ = 0;
};

}  // namespace

void run_ranks(int n_ranks, const std::function<void(Comm&)>& f) {
  World world(n_ranks);
  std::vector<int> everybody(static_cast<size_t>(n_ranks));
  std::iota(everybody.begin(), everybody.end(), 0);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        ThreadComm comm(world, everybody, rank);
        f(comm);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      world.leave(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace qstep::test
