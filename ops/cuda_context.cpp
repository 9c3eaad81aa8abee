#include "ops/cuda_context.h"

namespace qstep::ops {

void cuda_check(cudaError_t status, std::string_view call) {
  if (status == cudaSuccess) return;
  const auto code = status == cudaErrorMemoryAllocation ? ExitCode::kOutOfMemory : ExitCode::kGpu;
  throw Error(code, fmt::format("CUDA: {}: {} ({})", call, cudaGetErrorString(status),
                                cudaGetErrorName(status)));
}

Buffer allocate_device(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // not sticky
    size_t free = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw Error(
        ExitCode::kOutOfMemory,
        fmt::format("the GPU has no {:.2f} GiB left: {:.2f} of its {:.2f} GiB are free. Lower "
                    "train.micro_batch or train.seq_len, or use more ranks (`qstep plan` "
                    "shows the memory of each)",
                    static_cast<double>(bytes) / 0x1p30, static_cast<double>(free) / 0x1p30,
                    static_cast<double>(total) / 0x1p30));
  }
  cuda_check(status, "cudaMalloc");
  return {data, bytes, [](void* p) { (void)cudaFree(p); }};
}

CudaContext::CudaContext() {
  int device = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  device_name_ = properties.name;
  // Not ordered against the default stream, which nothing here uses.
  cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

CudaContext::~CudaContext() {
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}

void* CudaContext::scratch_bytes(int64_t bytes) {
  if (bytes > scratch_.bytes()) {
    // Kernels in flight may still use the old one.
    cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    scratch_ = {};
    scratch_ = allocate_device(bytes);
  }
  return scratch_.data();
}

}  // namespace qstep::ops
