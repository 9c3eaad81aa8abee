// The amax of an operation's output on the CPU (ops/ops.h), row by row while the row is in the
// cache.
#pragma once

#include <atomic>

#include "ops/output_amax.h"
#include "ops/simd/simd_lanes.h"

namespace qstep::ops::cpu {

class OutputAmax {
 public:
  OutputAmax(const Tensor& amax, const char* what) : bits_(amax_bits(amax)) {
    check_output_amax(amax, what);
    if (bits_ != nullptr) *bits_ = 0;
  }

  // A row that was stored, by any thread. The largest of all does not depend on their order.
  template <class T>
  void add(const T* row, int64_t n) const {
    if (bits_ == nullptr) return;
    const uint32_t found = largest_magnitude_bits(row, n);
    const std::atomic_ref<uint32_t> largest(*bits_);
    uint32_t known = largest.load(std::memory_order_relaxed);
    while (known < found &&
           !largest.compare_exchange_weak(known, found, std::memory_order_relaxed)) {
    }
  }

 private:
  uint32_t* bits_;
};

}  // namespace qstep::ops::cpu
