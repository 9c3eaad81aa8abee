#include <algorithm>

#include "parallel/combine.h"
#include "parallel/device_reduce_tree.h"
#include "parallel/reduction_tree.h"

namespace qstep::parallel {

namespace {

// Enough to fill any GPU of today with a loop over the elements in each thread.
constexpr int64_t kMaxBlocks = 2048;
constexpr int kThreads = 256;

template <class T, class Op>
__global__ void reduce_kernel(DeviceReduction r, Op op) {
  using Value = decltype(widen(T{}));
  const auto* const own = static_cast<const T*>(r.own);
  const auto* const staged = static_cast<const T*>(r.staged);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < r.n;
       i += step) {
    Value partial[kTreeLevels];
    int top = 0;
    for (int leaf = 0; leaf < r.n_ranks; ++leaf) {
      const int64_t place = leaf < r.rank ? leaf : leaf - 1;
      partial[top++] = widen(leaf == r.rank ? own[i] : staged[place * r.stride + i]);
      for (int64_t merges = merges_after(leaf, r.n_ranks); merges > 0; --merges, --top) {
        partial[top - 2] = op(partial[top - 2], partial[top - 1]);
      }
    }
    narrow(static_cast<T*>(r.out)[i], partial[0]);
  }
}

template <class T, class Op>
cudaError_t launch(const DeviceReduction& r, Op op, cudaStream_t stream) {
  const int64_t blocks = std::min(kMaxBlocks, (r.n + kThreads - 1) / kThreads);
  reduce_kernel<T><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(r, op);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_reduce_tree(const DeviceReduction& r, cudaStream_t stream) {
  if (r.n == 0) return cudaSuccess;
  switch (r.reduce) {
    case DeviceReduce::kSumF32:
      return launch<float>(r, Sum(), stream);
    case DeviceReduce::kSumBf16:
      return launch<precision::Bf16>(r, Sum(), stream);
    case DeviceReduce::kSumI32:
      return launch<int32_t>(r, Sum(), stream);
    case DeviceReduce::kMaxF32:
      return launch<float>(r, Max(), stream);
    case DeviceReduce::kMaxI32:
      return launch<int32_t>(r, Max(), stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace qstep::parallel
