// How the passes of a quantize call get onto a GPU (ops/quantize/quantize_passes.h). A kernel's
// function objects hold the plans of two sides, which stay in constant memory: they are never
// copied to a thread.
#pragma once

#include "ops/cuda/cuda_launch.cuh"

namespace qstep::ops::device {

template <class Work>
__global__ void __launch_bounds__(Work::kThreads, Work::kBlocksPerSm)
    run_blocks(const __grid_constant__ Work work) {
  extern __shared__ float4 shared[];
  work(CudaTeam(Work::kThreads), reinterpret_cast<char*>(shared), static_cast<int64_t>(blockIdx.x));
}

class QuantizeLaunch {
 public:
  explicit QuantizeLaunch(CudaContext& context) : context_(context) {}

  template <class T>
  T* scratch(int64_t n) const {
    return context_.scratch<T>(n);
  }
  void zero(void* memory, int64_t bytes) const {
    cuda_check(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), context_.stream()), kWhat);
  }
  // Instantiated in quantize_*.cu.
  template <class Work>
  void blocks(const Work& work) const;
  template <class F>
  void each(int64_t n, const F& f) const {
    CudaLaunch(context_, kWhat).each(n, f);
  }
  void download(void* to, const void* from, int64_t bytes) const {
    cuda_check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost,
                               context_.stream()),
               kWhat);
    cuda_check(cudaStreamSynchronize(context_.stream()), kWhat);
  }

 private:
  static constexpr const char* kWhat = "quantize";
  CudaContext& context_;
};

template <class Work>
void QuantizeLaunch::blocks(const Work& work) const {
  const int64_t n = work.blocks();
  if (n == 0) return;
  check(n <= INT32_MAX, "quantize: a tensor of more than 2^31 tiles");
  const int bytes = work.shared_bytes();
  constexpr int kWithoutAsking = 48 << 10;
  if (bytes > kWithoutAsking) {
    cuda_check(
        cudaFuncSetAttribute(run_blocks<Work>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        kWhat);
  }
  const KernelLaunch launch{.function = reinterpret_cast<const void*>(run_blocks<Work>),
                            .blocks = static_cast<unsigned>(n),
                            .threads = static_cast<unsigned>(Work::kThreads),
                            .shared_bytes = static_cast<size_t>(bytes)};
  run_blocks<<<launch.blocks, launch.threads, launch.shared_bytes, context_.stream()>>>(work);
  cuda_check(cudaGetLastError(), kWhat);
  if (CudaCapture* const capture = context_.capture(); capture != nullptr) {
    capture->launched(launch, work);
  }
}

}  // namespace qstep::ops::device
