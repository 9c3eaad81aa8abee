// Maxima that many threads of a GPU find together: of the bits of magnitudes, whose order is that
// of integers, so that the order of the threads decides nothing.
#pragma once

#include <cstdint>

#include "ops/team.h"

namespace qstep::ops::device {

// Each raises *to, one of many threads' doing it. Of the tensor, where most find that it is large
// enough:
QSTEP_HD inline void raise(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  if (value > *static_cast<volatile uint32_t*>(to)) atomicMax(to, value);
#else
  if (value > *to) *to = value;
#endif
}
// Of the thread block, each thread with a place that few others have:
QSTEP_HD inline void raise_in_block(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(to, value);
#else
  raise(to, value);
#endif
}
// Of the thread block, all threads of a warp together with one place:
QSTEP_HD inline void raise_together(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  const uint32_t largest = __reduce_max_sync(~0u, value);
  if (threadIdx.x % kWarp == 0) atomicMax(to, largest);
#else
  raise(to, value);
#endif
}

}  // namespace qstep::ops::device
