// Marks of a device's clock (device_clock.h) as events of the stream that orders the operations.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "ops/device_clock.h"

namespace qstep::ops {

class CudaClock final : public DeviceClock {
 public:
  explicit CudaClock(cudaStream_t stream) : stream_(stream) {}  // outlives this
  CudaClock(const CudaClock&) = delete;
  CudaClock& operator=(const CudaClock&) = delete;
  ~CudaClock() override;

  void start() override { handed_over_ns_.clear(); }
  int64_t mark() override;
  void read(std::span<int64_t> times_ns) override;

 private:
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;  // made when first needed, used again in every step
  std::vector<int64_t> handed_over_ns_;
};

}  // namespace qstep::ops
