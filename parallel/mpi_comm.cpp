// The MPI world and the groups split from it: checks arguments, numbers collectives, and hands them
// to the communication thread.
#include <algorithm>
#include <array>
#include <exception>
#include <tuple>
#include <utility>

#include "parallel/comm_arguments.h"
#include "parallel/mpi_thread.h"
#include "parallel/mpi_world.h"
#include "parallel/reduce_tree.h"

namespace qstep::parallel {

namespace {

using ops::Dtype;
using ops::Tensor;

class MpiComm final : public Comm {
 public:
  explicit MpiComm(std::unique_ptr<MpiThread> thread)
      : owned_thread_(std::move(thread)), thread_(*owned_thread_) {
    group_.name = kHostsGroup;
    group_.rank = thread_.world_rank();
    for (int r = 0; r < thread_.world_size(); ++r) group_.members.push_back(r);
  }
  MpiComm(MpiThread& thread, MpiGroup group) : thread_(thread), group_(std::move(group)) {}

  ~MpiComm() override {
    if (std::uncaught_exceptions() > exceptions_at_birth_) thread_.abandon();
    thread_.drain(last_ticket_);
  }

  std::string_view name() const override { return "mpi"; }
  std::string_view group() const override { return group_.name; }
  int rank() const override { return group_.rank; }
  int size() const override { return group_.size(); }

  Ticket all_reduce(const Tensor& x, Reduce reduce) override {
    check_reducible(x.dtype, reduce);
    MpiCommand command = make(Operation::kAllReduce, x);
    command.reduce = reduce;
    return hand_over(command);
  }
  Ticket reduce_scatter(const Tensor& x, Bounds bounds) override {
    check_scattered(x);
    check_bounds(bounds, x, size());
    return hand_over(make(Operation::kReduceScatter, x), bounds);
  }
  Ticket all_gather(const Tensor& x, Bounds bounds) override {
    check_bounds(bounds, x, size());
    return hand_over(make(Operation::kAllGather, x), bounds);
  }
  Ticket broadcast(const Tensor& x, int root) override {
    check_rank(root, size(), "broadcast: root");
    return hand_over(make(Operation::kBroadcast, x, root));
  }
  Ticket all_to_all(const Tensor& out, const Tensor& in) override {
    check_all_to_all(out, in, size());
    MpiCommand command = make(Operation::kAllToAll, out);
    command.in = in;
    return hand_over(command);
  }
  Ticket send(const Tensor& x, int to) override {
    check_peer(to, rank(), size());
    return hand_over(make(Operation::kSend, x, to));
  }
  Ticket receive(const Tensor& x, int from) override {
    check_peer(from, rank(), size());
    return hand_over(make(Operation::kReceive, x, from));
  }
  Ticket barrier() override { return hand_over(make(Operation::kBarrier, Tensor())); }

  void wait(Ticket ticket) override { thread_.wait(ticket); }
  std::unique_ptr<Comm> split(int color, int key) override;
  CommTimes times() const override { return thread_.times(); }
  void observe(CollectiveObserver* observer) override { thread_.observe(observer); }

 private:
  MpiCommand make(Operation operation, const Tensor& x, int peer = -1) {
    check_memory(x);
    MpiCommand command;
    command.group = &group_;
    command.operation = operation;
    command.x = x;
    command.peer = peer;
    command.sequence = is_point_to_point(operation) ? ++n_messages_ : ++n_collectives_;
    return command;
  }
  Ticket hand_over(const MpiCommand& command, Bounds bounds = {}) {
    last_ticket_ = thread_.hand_over(command, bounds);
    return last_ticket_;
  }

  std::unique_ptr<MpiThread> owned_thread_;  // of the world only
  MpiThread& thread_;
  MpiGroup group_;
  int exceptions_at_birth_ = std::uncaught_exceptions();
  Ticket last_ticket_ = 0;
  // CollectiveRecord::sequence.
  uint64_t n_collectives_ = 0;
  uint64_t n_messages_ = 0;
  int n_splits_ = 0;
};

// Everybody tells color, key and the first group number it has not used; the largest of these is
// the number of the new groups, which share no rank.
std::unique_ptr<Comm> MpiComm::split(int color, int key) {
  constexpr size_t kFields = 3;
  const auto n = static_cast<size_t>(size());
  std::vector<std::array<int32_t, kFields>> told(n);
  told[static_cast<size_t>(rank())] = {color, key, thread_.next_group_id()};
  std::vector<int64_t> bounds(n + 1);
  for (size_t r = 0; r <= n; ++r) bounds[r] = static_cast<int64_t>(r * kFields);
  wait(hand_over(make(Operation::kSplit, ops::matrix(told.data(), Dtype::kI32, size(), kFields)),
                 bounds));

  std::vector<std::pair<int32_t, int>> order;  // key, rank in this group
  MpiGroup group;
  group.name = fmt::format("{}/{}:{}", group_.name, n_splits_++, color);
  for (int r = 0; r < size(); ++r) {
    const auto& [its_color, its_key, its_id] = told[static_cast<size_t>(r)];
    group.id = std::max(group.id, its_id);
    if (its_color == color) order.emplace_back(its_key, r);
  }
  ops::check(group.id < kMaxGroups, "split: too many groups");
  thread_.set_next_group_id(group.id + 1);
  std::sort(order.begin(), order.end());
  for (const auto& [its_key, r] : order) {
    if (r == rank()) group.rank = group.size();
    group.members.push_back(group_.members[static_cast<size_t>(r)]);
  }
  return std::make_unique<MpiComm>(thread_, std::move(group));
}

}  // namespace

std::unique_ptr<Comm> make_mpi() {
  return std::make_unique<MpiComm>(std::make_unique<MpiThread>());
}

}  // namespace qstep::parallel
