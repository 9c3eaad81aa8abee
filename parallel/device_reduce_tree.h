// reduce_tree.h on a GPU: the same sums of the same bits. Includes nothing but CUDA, whose compiler
// does not take fmt.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qstep::parallel {

// BF16 sums are formed in FP32 and rounded once.
enum class DeviceReduce : uint8_t { kSumF32, kSumBf16, kSumI32, kMaxF32, kMaxI32 };

// out[i] = own[i] and staged[s stride + i], s = 0 ... n_ranks - 2, combined in the tree of n_ranks
// leaves, i in [0, n); `own` is leaf `rank`, the staged ones are the others in order. All are in
// device memory; out may be own. At most 2^16 ranks.
struct DeviceReduction {
  void* out = nullptr;
  const void* own = nullptr;
  const void* staged = nullptr;
  int64_t stride = 0;  // elements
  int64_t n = 0;
  int rank = 0, n_ranks = 1;
  DeviceReduce reduce = DeviceReduce::kSumF32;
};
cudaError_t launch_reduce_tree(const DeviceReduction& reduction, cudaStream_t stream);

}  // namespace qstep::parallel
