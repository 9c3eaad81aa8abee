// NCCL's functions as far as the world of GPUs calls them, on a device that is not there
// (fake_cuda.h): messages go over the world of the processors. With these in place of the libraries
// the NCCL world runs its tests without a GPU: which rank sends what where, tickets, groups, and
// what waits for what. What they do not show is whether NCCL and CUDA agree.
#include "tests/parallel/fake_nccl.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/device_reduce_tree.h"
#include "parallel/nccl.h"
#include "parallel/nccl_world.h"
#include "parallel/reduce_tree.h"
#include "parallel/world.h"
#include "tests/parallel/fake_cuda.h"
#include "tests/parallel/world_main.h"

using qstep::parallel::Comm;
using qstep::parallel::put_on_stream;

// What NCCL leaves open: a communicator is a group of the host's world.
struct ncclComm {
  Comm* hosts = nullptr;
  std::unique_ptr<Comm> owned;
};

namespace {

Comm* the_hosts = nullptr;
int n_comms_aborted = 0;

qstep::ops::Tensor bytes(const void* data, size_t n) {
  return qstep::ops::matrix(const_cast<void*>(data), qstep::ops::Dtype::kU8, 1,
                            static_cast<int64_t>(n));
}

// Sends and receives between group_start() and group_end() are under way together.
struct Group {
  int depth = 0;
  std::vector<std::function<std::pair<Comm*, Comm::Ticket>()>> messages;
  cudaStream_t stream = nullptr;
} the_group;

template <class F>
ncclResult_t add(cudaStream_t stream, F&& message) {
  if (the_group.depth == 0) return ncclInvalidUsage;
  the_group.messages.push_back(std::forward<F>(message));
  the_group.stream = stream;
  return ncclSuccess;
}

}  // namespace

namespace qstep::parallel {

// Tests read on the host what they waited for.
class ReadOnHost final : public Comm {
 public:
  explicit ReadOnHost(std::unique_ptr<Comm> gpus) : gpus_(std::move(gpus)) {}
  std::string_view name() const override { return gpus_->name(); }
  std::string_view group() const override { return gpus_->group(); }
  int rank() const override { return gpus_->rank(); }
  int size() const override { return gpus_->size(); }
  Ticket all_reduce(const ops::Tensor& x, Reduce reduce) override {
    return gpus_->all_reduce(x, reduce);
  }
  Ticket reduce_scatter(const ops::Tensor& x, Bounds bounds) override {
    return gpus_->reduce_scatter(x, bounds);
  }
  Ticket all_gather(const ops::Tensor& x, Bounds bounds) override {
    return gpus_->all_gather(x, bounds);
  }
  Ticket broadcast(const ops::Tensor& x, int root) override { return gpus_->broadcast(x, root); }
  Ticket all_to_all(const ops::Tensor& out, const ops::Tensor& in) override {
    return gpus_->all_to_all(out, in);
  }
  Ticket send(const ops::Tensor& x, int to) override { return gpus_->send(x, to); }
  Ticket receive(const ops::Tensor& x, int from) override { return gpus_->receive(x, from); }
  Ticket barrier() override { return gpus_->barrier(); }
  void wait(Ticket ticket) override {
    gpus_->wait(ticket);
    gpus_->synchronize();
  }
  std::unique_ptr<Comm> split(int color, int key) override {
    return std::make_unique<ReadOnHost>(gpus_->split(color, key));
  }
  CommTimes times() const override { return gpus_->times(); }
  void observe(CollectiveObserver* observer) override { gpus_->observe(observer); }

 private:
  std::unique_ptr<Comm> gpus_;
};

Worlds make_worlds(const std::string&, int) {
  Worlds worlds{.hosts = make_world(find_launch()), .tested = nullptr};
  the_hosts = worlds.hosts.get();
  worlds.tested = std::make_unique<ReadOnHost>(make_nccl(*the_hosts, nullptr));
  return worlds;
}

Comm& fake_hosts() { return *the_hosts; }
int n_aborted() { return n_comms_aborted; }

namespace {

void add_up(const DeviceReduction& r) {
  using ops::Dtype;
  const bool is_max = r.reduce == DeviceReduce::kMaxF32 || r.reduce == DeviceReduce::kMaxI32;
  const bool is_f32 = r.reduce == DeviceReduce::kSumF32 || r.reduce == DeviceReduce::kMaxF32;
  const Dtype dtype = r.reduce == DeviceReduce::kSumBf16 ? Dtype::kBf16
                      : is_f32                           ? Dtype::kF32
                                                         : Dtype::kI32;
  std::vector<const void*> sources;
  for (int leaf = 0; leaf < r.n_ranks; ++leaf) {
    const int64_t place = leaf < r.rank ? leaf : leaf - 1;
    const int64_t offset = place * r.stride * ops::size_bytes(dtype);
    sources.push_back(leaf == r.rank ? r.own : static_cast<const char*>(r.staged) + offset);
  }
  reduce_tree(r.out, dtype, sources, dtype, r.n, is_max ? Reduce::kMax : Reduce::kSum);
}

}  // namespace

cudaError_t launch_reduce_tree(const DeviceReduction& reduction, cudaStream_t stream) {
  put_on_stream(stream, [reduction] { add_up(reduction); });
  return cudaSuccess;
}

}  // namespace qstep::parallel

namespace {

ncclResult_t get_version(int* version) { return *version = NCCL_VERSION_CODE, ncclSuccess; }
const char* error_string(ncclResult_t) { return "an error of the fake NCCL"; }
const char* last_error(ncclComm_t) { return ""; }
ncclResult_t get_unique_id(ncclUniqueId* id) {
  std::memset(id->internal, 7, sizeof id->internal);
  return ncclSuccess;
}
ncclResult_t comm_init(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t*) {
  if (size != the_hosts->size() || rank != the_hosts->rank()) return ncclInvalidArgument;
  for (const char c : id.internal) {
    if (c != 7) return ncclInvalidArgument;  // not the one of rank 0
  }
  *comm = new ncclComm{.hosts = the_hosts, .owned = nullptr};
  return ncclSuccess;
}
ncclResult_t comm_split(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t*) {
  std::unique_ptr<Comm> group = comm->hosts->split(color, key);
  Comm* const hosts = group.get();
  *part = new ncclComm{.hosts = hosts, .owned = std::move(group)};
  return ncclSuccess;
}
ncclResult_t comm_finalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t comm_destroy(ncclComm_t comm) { return delete comm, ncclSuccess; }
ncclResult_t comm_abort(ncclComm_t) { return ++n_comms_aborted, ncclSuccess; }
ncclResult_t comm_async_error(ncclComm_t, ncclResult_t* state) { return *state = ncclSuccess; }
ncclResult_t comm_rank(ncclComm_t comm, int* rank) {
  return *rank = comm->hosts->rank(), ncclSuccess;
}
ncclResult_t comm_size(ncclComm_t comm, int* size) {
  return *size = comm->hosts->size(), ncclSuccess;
}
ncclResult_t group_start() { return ++the_group.depth, ncclSuccess; }
ncclResult_t group_end() {
  if (--the_group.depth > 0 || the_group.messages.empty()) return ncclSuccess;
  put_on_stream(the_group.stream, [messages = std::exchange(the_group.messages, {})] {
    std::pair<Comm*, Comm::Ticket> last;  // tickets ascend over all groups
    for (const auto& message : messages) last = message();
    last.first->wait(last.second);
  });
  return ncclSuccess;
}
ncclResult_t send(const void* data, size_t n, ncclDataType_t, int to, ncclComm_t comm,
                  cudaStream_t stream) {
  return add(stream, [=, hosts = comm->hosts] {
    return std::pair(hosts, hosts->send(bytes(data, n), to));
  });
}
ncclResult_t receive(void* data, size_t n, ncclDataType_t, int from, ncclComm_t comm,
                     cudaStream_t stream) {
  return add(stream, [=, hosts = comm->hosts] {
    return std::pair(hosts, hosts->receive(bytes(data, n), from));
  });
}
ncclResult_t broadcast(const void* in, void* out, size_t n, ncclDataType_t, int root,
                       ncclComm_t comm, cudaStream_t stream) {
  if (in != out) return ncclInvalidArgument;
  qstep::parallel::put_on_stream(
      stream, [=, hosts = comm->hosts] { hosts->wait(hosts->broadcast(bytes(out, n), root)); });
  return ncclSuccess;
}

}  // namespace

namespace qstep::parallel {

void Nccl::check(ncclResult_t code, std::string_view call) const {
  ops::check(code == ncclSuccess, fmt::format("{}: an error of the fake NCCL", call));
}
std::string Nccl::name() const { return "fake NCCL"; }

const Nccl& nccl() {
  static constexpr Nccl functions{
      .get_version = get_version,
      .error_string = error_string,
      .last_error = last_error,
      .get_unique_id = get_unique_id,
      .comm_init = comm_init,
      .comm_split = comm_split,
      .comm_finalize = comm_finalize,
      .comm_destroy = comm_destroy,
      .comm_abort = comm_abort,
      .comm_async_error = comm_async_error,
      .comm_rank = comm_rank,
      .comm_size = comm_size,
      .group_start = group_start,
      .group_end = group_end,
      .send = send,
      .receive = receive,
      .broadcast = broadcast,
  };
  return functions;
}

}  // namespace qstep::parallel
