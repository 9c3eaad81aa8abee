// Copies between any memory of the host and the GPU, in the order of the stream, through pinned
// memory: the GPU fetches and leaves bytes while the host goes on.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <span>

#include "ops/cuda/staging.h"
#include "ops/ops.h"

namespace qstep::ops {

// An event without a time; of the device that is current when it is made.
class CudaEvent {
 public:
  CudaEvent();
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  // Behind all that the stream was given.
  void record(cudaStream_t stream) const;
  // The host waits until it is reached; not at all where it was never recorded.
  void wait() const;

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaCopies {
 public:
  explicit CudaCopies(cudaStream_t stream);  // outlives this

  // `host` has been read when this returns. Waits only where more than 8 MiB are on their way.
  void upload(void* to, const void* host, int64_t bytes);
  // Waits once, for all that the stream was given.
  void download(std::span<const HostCopy> copies);

 private:
  struct StreamCopies {
    cudaStream_t stream;
    const std::array<CudaEvent, 2>* fetched;

    void copy(void* to, const char* from, int64_t bytes) const;
    void record(int half) const { (*fetched)[static_cast<size_t>(half)].record(stream); }
    void wait(int half) const { (*fetched)[static_cast<size_t>(half)].wait(); }
  };

  cudaStream_t stream_;
  Buffer pinned_, landing_;
  std::array<CudaEvent, 2> fetched_;
  Staging<StreamCopies> staging_;
};

}  // namespace qstep::ops
