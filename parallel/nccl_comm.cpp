// The NCCL world and the groups split from it. Collectives are sends and receives in one NCCL
// group, straight to the rank that needs the data, and a kernel that adds what came.
#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "parallel/comm_arguments.h"
#include "parallel/device_reduce_tree.h"
#include "parallel/nccl.h"
#include "parallel/nccl_memory.h"
#include "parallel/nccl_queue.h"
#include "parallel/nccl_world.h"
#include "parallel/reduce_tree.h"
#include "parallel/shards.h"

namespace qstep::parallel {

namespace {

using ops::Dtype;
using ops::Tensor;

DeviceReduce device_reduce(Dtype dtype, Reduce reduce) {
  check_reducible(dtype, reduce);
  if (reduce == Reduce::kMax) {
    return dtype == Dtype::kI32 ? DeviceReduce::kMaxI32 : DeviceReduce::kMaxF32;
  }
  return dtype == Dtype::kI32    ? DeviceReduce::kSumI32
         : dtype == Dtype::kBf16 ? DeviceReduce::kSumBf16
                                 : DeviceReduce::kSumF32;
}

class NcclComm final : public Comm {
 public:
  // The world.
  NcclComm(std::unique_ptr<NcclQueue> queue, ncclComm_t comm)
      : NcclComm(*queue, comm, std::string(kGpusGroup)) {
    owned_queue_ = std::move(queue);
  }
  // A communicator that the queue knows.
  NcclComm(NcclQueue& queue, ncclComm_t comm, std::string name)
      : queue_(queue), comm_(comm), name_(std::move(name)) {
    nccl().check(nccl().comm_rank(comm_, &rank_), "ncclCommUserRank");
    nccl().check(nccl().comm_size(comm_, &size_), "ncclCommCount");
  }
  // Waits for what was handed over, unless an exception or a failure ends the world: then it ends
  // what is under way.
  ~NcclComm() override { queue_.remove(comm_, std::uncaught_exceptions() == exceptions_at_birth_); }

  std::string_view name() const override { return "nccl"; }
  std::string_view group() const override { return name_; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Ticket all_reduce(const Tensor& x, Reduce reduce) override {
    check_reducible(x.dtype, reduce);
    return collective("all_reduce", x, [&] {
      if (size_ == 1) return;
      if (x.bytes() <= kSmallSumBytes) return all_reduce_small(x, reduce);
      const std::vector<int64_t> bounds = even_bounds(x.size(), size_);
      scatter(x, bounds, reduce);
      gather(x, bounds);
    });
  }
  Ticket reduce_scatter(const Tensor& x, Bounds bounds) override {
    check_scattered(x);
    check_bounds(bounds, x, size_);
    return collective("reduce_scatter", x, [&] { scatter(x, bounds, Reduce::kSum); });
  }
  Ticket all_gather(const Tensor& x, Bounds bounds) override {
    check_bounds(bounds, x, size_);
    return collective("all_gather", x, [&] { gather(x, bounds); });
  }
  Ticket broadcast(const Tensor& x, int root) override {
    check_rank(root, size_, "broadcast: root");
    return collective("broadcast", x, [&] {
      const auto bytes = static_cast<size_t>(x.bytes());
      settle(nccl().broadcast(x.data, x.data, bytes, ncclUint8, root, comm_, queue_.stream()),
             "ncclBroadcast");
    });
  }
  Ticket all_to_all(const Tensor& out, const Tensor& in) override {
    check_all_to_all(out, in, size_);
    return collective("all_to_all", out, [&] {
      const int64_t bytes = in.bytes() / size_;
      exchange([&](int other) {
        send(static_cast<char*>(in.data) + other * bytes, bytes, other);
        receive(static_cast<char*>(out.data) + other * bytes, bytes, other);
      });
      check_cuda(
          cudaMemcpyAsync(static_cast<char*>(out.data) + rank_ * bytes,
                          static_cast<char*>(in.data) + rank_ * bytes, static_cast<size_t>(bytes),
                          cudaMemcpyDeviceToDevice, queue_.stream()),
          "a copy");
    });
  }
  Ticket send(const Tensor& x, int to) override { return point_to_point("send", x, to); }
  Ticket receive(const Tensor& x, int from) override { return point_to_point("receive", x, from); }
  Ticket barrier() override { return meet("barrier"); }

  void wait(Ticket ticket) override { queue_.wait(ticket); }
  void synchronize() override { queue_.synchronize(); }

  // NCCL wants nothing under way meanwhile.
  std::unique_ptr<Comm> split(int color, int key) override {
    meet("split");
    queue_.finish();
    ncclComm_t part = nullptr;
    settle(nccl().comm_split(comm_, color, key, &part, nullptr), "ncclCommSplit");
    queue_.add(part);
    queue_.settle(part, ncclInProgress, "ncclCommSplit");
    return std::make_unique<NcclComm>(queue_, part,
                                      fmt::format("{}/{}:{}", name_, n_splits_++, color));
  }

  CommTimes times() const override { return queue_.times(); }
  void observe(CollectiveObserver* observer) override { queue_.observe(observer); }

 private:
  template <class F>
  Ticket collective(std::string_view operation, const Tensor& x, F&& launch) {
    check_memory(x);
    queue_.begin();
    launch();
    return queue_.end({.group = name_,
                       .sequence = ++n_collectives_,
                       .operation = operation,
                       .bytes = x.bytes(),
                       .dtype = x.dtype});
  }
  // Everybody tells everybody.
  Ticket meet(std::string_view operation) {
    return collective(operation, Tensor(), [&] {
      char* const bytes = static_cast<char*>(queue_.staging(size_ + 1));
      exchange([&](int other) {
        send(bytes + size_, 1, other);
        receive(bytes + other, 1, other);
      });
    });
  }
  Ticket point_to_point(std::string_view operation, const Tensor& x, int peer) {
    check_peer(peer, rank_, size_);
    check_memory(x);
    return queue_.exchange({.record = {.group = name_,
                                       .sequence = ++n_messages_,
                                       .operation = operation,
                                       .bytes = x.bytes(),
                                       .dtype = x.dtype,
                                       .peer = peer},
                            .comm = comm_,
                            .data = x.data,
                            .sends = operation == "send"});
  }

  void settle(ncclResult_t code, std::string_view what) { queue_.settle(comm_, code, what); }

  // f(other) for all other ranks, in one group: what it sends and receives is under way together.
  template <class F>
  void exchange(F&& f) {
    nccl().check(nccl().group_start(), "ncclGroupStart");
    for (int i = 1; i < size_; ++i) f((rank_ + i) % size_);
    settle(nccl().group_end(), "ncclGroupEnd");
  }
  void send(const void* data, int64_t bytes, int to) {
    if (bytes == 0) return;
    const ncclResult_t code =
        nccl().send(data, static_cast<size_t>(bytes), ncclUint8, to, comm_, queue_.stream());
    if (code != ncclInProgress) nccl().check(code, "ncclSend");
    queue_.sent(bytes);
  }
  void receive(void* data, int64_t bytes, int from) {
    if (bytes == 0) return;
    const ncclResult_t code =
        nccl().receive(data, static_cast<size_t>(bytes), ncclUint8, from, comm_, queue_.stream());
    if (code != ncclInProgress) nccl().check(code, "ncclRecv");
  }
  // Where the elements of another rank lie among those of all others.
  int place(int other) const { return other < rank_ ? other : other - 1; }

  void all_reduce_small(const Tensor& x, Reduce reduce) {
    char* const staging = static_cast<char*>(queue_.staging((size_ - 1) * x.bytes()));
    exchange([&](int other) {
      send(x.data, x.bytes(), other);
      receive(staging + place(other) * x.bytes(), x.bytes(), other);
    });
    add(x.data, x.size(), x.dtype, staging, x.size(), reduce);
  }

  // In rounds: round k moves piece k of every part to its owner, who adds it to its own.
  void scatter(const Tensor& x, Bounds bounds, Reduce reduce) {
    const int64_t element = ops::size_bytes(x.dtype);
    const int64_t piece = piece_bytes(size_);
    char* const staging = static_cast<char*>(queue_.staging(staging_bytes(size_)));
    char* const data = static_cast<char*>(x.data);
    const auto first = [&](int r) { return bounds[static_cast<size_t>(r)] * element; };
    int64_t longest = 0;
    for (int r = 0; r < size_; ++r) longest = std::max(longest, first(r + 1) - first(r));
    for (int64_t offset = 0; offset < longest && size_ > 1; offset += piece) {
      const auto bytes = [&](int r) {
        return std::clamp(first(r + 1) - first(r) - offset, int64_t{0}, piece);
      };
      exchange([&](int other) {
        send(data + first(other) + offset, bytes(other), other);
        receive(staging + place(other) * piece, bytes(rank_), other);
      });
      add(data + first(rank_) + offset, bytes(rank_) / element, x.dtype, staging, piece / element,
          reduce);
    }
  }

  void gather(const Tensor& x, Bounds bounds) {
    const int64_t element = ops::size_bytes(x.dtype);
    char* const data = static_cast<char*>(x.data);
    const auto first = [&](int r) { return bounds[static_cast<size_t>(r)] * element; };
    exchange([&](int other) {
      send(data + first(rank_), first(rank_ + 1) - first(rank_), other);
      receive(data + first(other), first(other + 1) - first(other), other);
    });
  }

  void add(void* own, int64_t n, Dtype dtype, const void* staged, int64_t stride, Reduce reduce) {
    check_cuda(launch_reduce_tree({.out = own,
                                   .own = own,
                                   .staged = staged,
                                   .stride = stride,
                                   .n = n,
                                   .rank = rank_,
                                   .n_ranks = size_,
                                   .reduce = device_reduce(dtype, reduce)},
                                  queue_.stream()),
               "the kernel that adds what ranks sent");
  }

  std::unique_ptr<NcclQueue> owned_queue_;  // of the world only
  NcclQueue& queue_;
  ncclComm_t comm_;
  int rank_ = 0, size_ = 1;
  std::string name_;
  int exceptions_at_birth_ = std::uncaught_exceptions();
  // CollectiveRecord::sequence.
  uint64_t n_collectives_ = 0;
  uint64_t n_messages_ = 0;
  int n_splits_ = 0;
};

}  // namespace

std::unique_ptr<Comm> make_nccl(Comm& hosts, void* compute_stream, CollectiveObserver* observer) {
  ncclUniqueId id{};
  if (hosts.rank() == 0) nccl().check(nccl().get_unique_id(&id), "ncclGetUniqueId");
  const std::string text =
      broadcast_text(hosts, std::string_view(id.internal, sizeof id.internal), 0);
  text.copy(id.internal, sizeof id.internal);

  auto queue = std::make_unique<NcclQueue>(static_cast<cudaStream_t>(compute_stream), observer);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;  // a call that waits for a dead rank could not be told so
  ncclComm_t comm = nullptr;
  const ncclResult_t code = nccl().comm_init(&comm, hosts.size(), id, hosts.rank(), &config);
  if (code == ncclInProgress || code == ncclSuccess) queue->add(comm);
  queue->settle(comm, code, "ncclCommInitRankConfig");
  return std::make_unique<NcclComm>(std::move(queue), comm);
}

std::string nccl_name() { return nccl().name(); }

}  // namespace qstep::parallel
