// CUDA's and NCCL's functions as far as nccl_comm.cpp and nccl_queue.cpp call them, on host memory:
// what is launched is done at once, and messages go over the world of the processors. With these in
// place of the libraries the NCCL world runs its tests without a GPU: which rank sends what where,
// tickets, groups. What they do not show is whether NCCL and CUDA agree.
#include <nccl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "parallel/device_reduce_tree.h"
#include "parallel/nccl_world.h"
#include "parallel/reduce_tree.h"
#include "parallel/world.h"
#include "tests/parallel/world_main.h"

using qstep::parallel::Comm;

// What NCCL leaves open: a communicator is a group of the host's world.
struct ncclComm {
  Comm* hosts = nullptr;
  std::unique_ptr<Comm> owned;
};

namespace {

Comm* the_hosts = nullptr;

qstep::ops::Tensor bytes(const void* data, size_t n) {
  return qstep::ops::matrix(const_cast<void*>(data), qstep::ops::Dtype::kU8, 1,
                            static_cast<int64_t>(n));
}

// Sends and receives between ncclGroupStart() and ncclGroupEnd() are under way together.
struct Group {
  int depth = 0;
  Comm* last = nullptr;
  Comm::Ticket ticket = 0;
} the_group;

ncclResult_t add(Comm* hosts, Comm::Ticket ticket) {
  if (the_group.depth == 0) return ncclInvalidUsage;
  the_group.last = hosts;
  the_group.ticket = ticket;
  return ncclSuccess;
}

}  // namespace

namespace qstep::parallel {

Worlds make_worlds(const std::string&, int) {
  const Launch launch = find_launch();
  Worlds worlds{.hosts = make_world(launch), .tested = nullptr};
  the_hosts = worlds.hosts.get();
  worlds.tested = make_nccl(*the_hosts, launch, nullptr);
  return worlds;
}

cudaError_t launch_reduce_tree(const DeviceReduction& r, cudaStream_t) {
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
  return cudaSuccess;
}

}  // namespace qstep::parallel

extern "C" {

cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  properties->pciDomainID = getpid();  // every process has a GPU of its own
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "an error of the fake GPU"; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t*) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  return *ms = 1.0f, cudaSuccess;
}
cudaError_t cudaMalloc(void** data, size_t size) { return *data = std::malloc(size), cudaSuccess; }
cudaError_t cudaFree(void* data) { return std::free(data), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* out, const void* in, size_t size, cudaMemcpyKind, cudaStream_t) {
  if (size > 0) std::memcpy(out, in, size);
  return cudaSuccess;
}

const char* ncclGetErrorString(ncclResult_t) { return "an error of the fake NCCL"; }
const char* ncclGetLastError(ncclComm_t) { return ""; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id->internal, 7, sizeof id->internal);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t*) {
  if (size != the_hosts->size() || rank != the_hosts->rank()) return ncclInvalidArgument;
  for (const char c : id.internal) {
    if (c != 7) return ncclInvalidArgument;  // not the one of rank 0
  }
  *comm = new ncclComm{.hosts = the_hosts, .owned = nullptr};
  return ncclSuccess;
}
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t*) {
  std::unique_ptr<Comm> group = comm->hosts->split(color, key);
  Comm* const hosts = group.get();
  *part = new ncclComm{.hosts = hosts, .owned = std::move(group)};
  return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t comm) { return delete comm, ncclSuccess; }
ncclResult_t ncclCommAbort(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* state) { return *state = ncclSuccess; }
ncclResult_t ncclCommUserRank(ncclComm_t comm, int* rank) {
  return *rank = comm->hosts->rank(), ncclSuccess;
}
ncclResult_t ncclCommCount(ncclComm_t comm, int* size) {
  return *size = comm->hosts->size(), ncclSuccess;
}
ncclResult_t ncclGroupStart() { return ++the_group.depth, ncclSuccess; }
ncclResult_t ncclGroupEnd() {
  if (--the_group.depth == 0 && the_group.last != nullptr) {
    the_group.last->wait(the_group.ticket);  // tickets ascend over all groups
    the_group.last = nullptr;
  }
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* data, size_t n, ncclDataType_t, int to, ncclComm_t comm,
                      cudaStream_t) {
  return add(comm->hosts, comm->hosts->send(bytes(data, n), to));
}
ncclResult_t ncclRecv(void* data, size_t n, ncclDataType_t, int from, ncclComm_t comm,
                      cudaStream_t) {
  return add(comm->hosts, comm->hosts->receive(bytes(data, n), from));
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t n, ncclDataType_t, int root,
                           ncclComm_t comm, cudaStream_t) {
  if (in != out) return ncclInvalidArgument;
  comm->hosts->wait(comm->hosts->broadcast(bytes(out, n), root));
  return ncclSuccess;
}

}  // extern "C"
