#include "ops/cuda/cuda_context.h"

#include "ops/cuda/cuda_reasons.h"

namespace qstep::ops {

// The numbers that ops/cuda/cuda_reasons.cpp has something to say about.
static_assert(cudaErrorMemoryAllocation == 2 && cudaErrorDevicesUnavailable == 46 &&
              cudaErrorECCUncorrectable == 214 && cudaErrorNvlinkUncorrectable == 220 &&
              cudaErrorIllegalAddress == 700 && cudaErrorLaunchTimeout == 702 &&
              cudaErrorAssert == 710 && cudaErrorHardwareStackError == 714 &&
              cudaErrorLaunchFailure == 719 && cudaErrorSystemNotReady == 802 &&
              cudaErrorSystemDriverMismatch == 803 && cudaErrorCompatNotSupportedOnDevice == 804 &&
              cudaErrorMpsConnectionFailed == 805 && cudaErrorUnknown == 999);

void cuda_check(cudaError_t status, std::string_view call) {
  if (status == cudaSuccess) return;
  throw cuda::call_error(status, cudaGetErrorName(status), cudaGetErrorString(status), call);
}

Buffer allocate_device(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // not sticky
    size_t free = 0, total = 0;
    cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw cuda::memory_error(bytes, static_cast<int64_t>(free), static_cast<int64_t>(total));
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
    check(capture_ == nullptr, "a call is recorded that was not made before: it takes memory");
    // Kernels in flight may still use the old one.
    cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    scratch_ = {};
    scratch_ = allocate_device(bytes);
    ++scratch_version_;
  }
  return scratch_.data();
}

}  // namespace qstep::ops
