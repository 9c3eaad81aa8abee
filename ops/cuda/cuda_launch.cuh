// How a kernel gets onto the GPU: a function object over a team (ops/team.h) or over an element.
// Nothing here allocates or waits, so that calls can be captured as a CUDA graph. Tests run the
// same function objects on the host (tests/support/host_launch.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "ops/cuda/cuda_capture.h"
#include "ops/cuda/cuda_context.h"
#include "ops/error.h"
#include "ops/team.h"

namespace qstep::ops::device {

// `size` neighbouring threads of a block: all of it where size exceeds a warp.
class CudaTeam : public TeamBase<CudaTeam> {
 public:
  __device__ explicit CudaTeam(int size)
      : size_(size),
        thread_(static_cast<int>(threadIdx.x) & (size - 1)),
        lanes_(size < kWarp
                   ? ((1u << size) - 1u) << (static_cast<int>(threadIdx.x) % kWarp & ~(size - 1))
                   : ~0u) {}

  QSTEP_HD bool leader() const { return thread_ == 0; }
  QSTEP_HD void sync() const {
#ifdef __CUDA_ARCH__
    if (size_ > kWarp) {
      __syncthreads();
    } else {
      __syncwarp(lanes_);
    }
#endif
  }

  template <class F>
  QSTEP_HD void each(int64_t n, const F& f) const {
    for (int64_t i = thread_; i < n; i += size_) f(i);
  }

  template <class V, class Add, class Join>
  QSTEP_HD V reduce(int64_t n, V start, const Add& add, const Join& join) const {
    V x = start;
    for (int64_t i = thread_; i < n; i += size_) add(x, i);
#ifdef __CUDA_ARCH__
    for (int half = (size_ < kWarp ? size_ : kWarp) / 2; half > 0; half /= 2) {
      x = join(x, from_lane_xor(x, half));
    }
    if (size_ <= kWarp) {
      __syncwarp(lanes_);
      return x;
    }
    __shared__ V of_warp[kMaxTeam / kWarp];
    const int n_warps = size_ / kWarp;
    __syncthreads();  // the readers of the reduction before this one are done
    if (thread_ % kWarp == 0) of_warp[thread_ / kWarp] = x;
    __syncthreads();
    x = of_warp[thread_ & (n_warps - 1)];
    for (int half = n_warps / 2; half > 0; half /= 2) x = join(x, from_lane_xor(x, half));
#endif
    return x;
  }

 private:
#ifdef __CUDA_ARCH__
  template <class V>
  __device__ V from_lane_xor(V x, int mask) const {
    static_assert(sizeof(V) % 4 == 0);
    uint32_t words[sizeof(V) / 4];
    std::memcpy(words, &x, sizeof(V));
#pragma unroll
    for (uint32_t& word : words) word = __shfl_xor_sync(lanes_, word, mask);
    std::memcpy(&x, words, sizeof(V));
    return x;
  }
#endif

  int size_, thread_;
  uint32_t lanes_;  // of the warp that belong to the team
};

template <class Kernel>
__global__ void __launch_bounds__(kMaxTeam)
    run_teams(const Kernel kernel, int64_t n_teams, int team_size, int64_t shared_floats) {
  extern __shared__ float4 shared[];
  const int in_block = static_cast<int>(threadIdx.x) / team_size;
  const int teams_per_block = static_cast<int>(blockDim.x) / team_size;
  const int64_t team = static_cast<int64_t>(blockIdx.x) * teams_per_block + in_block;
  if (team >= n_teams) return;
  kernel(CudaTeam(team_size), reinterpret_cast<float*>(shared) + in_block * shared_floats, team);
}

template <class F>
__global__ void __launch_bounds__(256) run_each(const F f, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

// Where the function objects of an operation go: in order, onto the stream of a context. `what`
// names the operation in errors.
class CudaLaunch {
 public:
  CudaLaunch(CudaContext& context, const char* what) : context_(context), what_(what) {}

  // kernel(team, shared, i) for i in [0, n_teams). team_size is a power of two, shared_floats (a
  // multiple of 4) what each team has of shared memory: together at most kMaxSharedFloats.
  template <class Kernel>
  void teams(int64_t n_teams, int team_size, int64_t shared_floats, const Kernel& kernel) const {
    if (n_teams == 0) return;
    const int threads = block_threads(team_size);
    const int64_t per_block = threads / team_size;
    const auto shared_bytes = static_cast<size_t>(per_block * shared_floats) * sizeof(float);
    constexpr size_t kWithoutAsking = 32 << 10;  // 48 KiB, of which reductions take some
    if (shared_bytes > kWithoutAsking) {
      cuda_check(
          cudaFuncSetAttribute(run_teams<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          what_);
    }
    run_teams<<<n_blocks(n_teams, per_block), static_cast<unsigned>(threads), shared_bytes,
                context_.stream()>>>(kernel, n_teams, team_size, shared_floats);
    cuda_check(cudaGetLastError(), what_);
  }

  // f(i) for i in [0, n), a thread each.
  template <class F>
  void each(int64_t n, const F& f) const {
    if (n == 0) return;
    const unsigned blocks = n_blocks(n, 256);
    run_each<<<blocks, 256, 0, context_.stream()>>>(f, n);
    cuda_check(cudaGetLastError(), what_);
    if (CudaCapture* const capture = context_.capture(); capture != nullptr) {
      capture->launched({reinterpret_cast<const void*>(run_each<F>), blocks, 256, 0}, f, n);
    }
  }

  template <class T>
  T* scratch(int64_t count) const {
    return context_.scratch<T>(count);
  }

 private:
  unsigned n_blocks(int64_t n, int64_t per_block) const {
    const int64_t blocks = (n + per_block - 1) / per_block;
    check(blocks <= INT32_MAX, what_);
    return static_cast<unsigned>(blocks);
  }

  CudaContext& context_;
  const char* what_;
};

}  // namespace qstep::ops::device
