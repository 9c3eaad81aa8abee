// What the operations of the CUDA backend share: the stream on which they are ordered and scratch
// memory. One per backend; of the device that was current when it was made.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "ops/arena.h"

namespace qstep::ops {

// Throws an Error (gpu; out of memory where that is what `status` says) that names the call, unless
// status is cudaSuccess. An error of an earlier kernel may come out here: CUDA_LAUNCH_BLOCKING=1
// shows which.
void cuda_check(cudaError_t status, std::string_view call);

// Uninitialized device memory; an Error (out of memory) that says how much is free otherwise.
Buffer allocate_device(int64_t bytes);

class CudaCapture;

class CudaContext {
 public:
  CudaContext();
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  // As the driver has it: "NVIDIA H200".
  const std::string& device_name() const { return device_name_; }
  cudaStream_t stream() const { return stream_; }

  // Grows to the largest request (during the first step) and stays. Whoever asks owns it until the
  // next request; calls are ordered by the stream.
  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(scratch_bytes(count * static_cast<int64_t>(sizeof(T))));
  }
  // Changes when the scratch memory is another one.
  int64_t scratch_version() const { return scratch_version_; }

  // While calls are recorded (ops/cuda/cuda_recorder.h); null otherwise.
  CudaCapture* capture() const { return capture_; }
  void set_capture(CudaCapture* capture) { capture_ = capture; }

 private:
  void* scratch_bytes(int64_t bytes);

  cudaStream_t stream_ = nullptr;
  std::string device_name_;
  Buffer scratch_;
  int64_t scratch_version_ = 0;
  CudaCapture* capture_ = nullptr;
};

}  // namespace qstep::ops
