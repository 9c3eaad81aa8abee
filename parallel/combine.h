// How two partial results become one: the operations of reductions, for the host and the device.
#pragma once

#include <cstdint>

#include "precision/bf16.h"
#include "precision/hd.h"

namespace qstep::parallel {

// Levels of the tree on a stack of partial results: enough for 2^16 ranks.
inline constexpr int kTreeLevels = 17;

// Partial results are FP32 where elements are BF16.
QSTEP_HD inline float widen(precision::Bf16 x) { return precision::to_float(x); }
QSTEP_HD inline float widen(float x) { return x; }
QSTEP_HD inline int32_t widen(int32_t x) { return x; }

QSTEP_HD inline void narrow(precision::Bf16& out, float x) { out = precision::to_bf16(x); }
QSTEP_HD inline void narrow(float& out, float x) { out = x; }
QSTEP_HD inline void narrow(int32_t& out, int32_t x) { out = x; }

// int32 wraps.
struct Sum {
  QSTEP_HD float operator()(float a, float b) const { return a + b; }
  QSTEP_HD int32_t operator()(int32_t a, int32_t b) const {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
};

// NaN if one of them is.
struct Max {
  QSTEP_HD float operator()(float a, float b) const { return a > b || a != a ? a : b; }
  QSTEP_HD int32_t operator()(int32_t a, int32_t b) const { return a > b ? a : b; }
};

}  // namespace qstep::parallel
