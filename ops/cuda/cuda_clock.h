// Marks of a device's clock (device_clock.h) as events of the stream that orders the operations.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "ops/cuda/cuda_context.h"
#include "ops/device_clock.h"

namespace qstep::ops {

class CudaClock final : public DeviceClock {
 public:
  explicit CudaClock(CudaContext& context) : context_(context) {}  // outlives this
  CudaClock(const CudaClock&) = delete;
  CudaClock& operator=(const CudaClock&) = delete;
  ~CudaClock() override;

  void start() override { handed_over_ns_.clear(); }
  int64_t mark() override;
  void read(std::span<int64_t> times_ns) override;

  // For graphs that record events of this clock: the marks so far, n more that a graph is about to
  // make (the number of the first), and the event that makes a mark.
  int64_t marks() const { return static_cast<int64_t>(handed_over_ns_.size()); }
  int64_t add_marks(int64_t n);
  cudaEvent_t event(int64_t mark) const { return events_[static_cast<size_t>(mark)]; }

 private:
  CudaContext& context_;
  std::vector<cudaEvent_t> events_;  // made when first needed, used again in every step
  std::vector<int64_t> handed_over_ns_;
};

}  // namespace qstep::ops
