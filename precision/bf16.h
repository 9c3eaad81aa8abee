// bfloat16: the upper 16 bits of a binary32, rounded to nearest even.
#pragma once

#include <bit>
#include <cstdint>

#include "precision/hd.h"

namespace qstep::precision {

struct Bf16 {
  uint16_t bits;
};

inline constexpr float kBf16Epsilon = 0x1p-8f;  // unit roundoff: half an ulp at 1

QSTEP_HD inline float to_float(Bf16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

QSTEP_HD inline float to_float(float x) { return x; }

// Two of them, the first in the lower half, by the instruction that a GPU has for a pair: the one
// for a single number takes four times as long.
QSTEP_HD inline uint32_t pack_bf16(float low, float high);

// Nearest even; overflow goes to infinity, every NaN becomes 0x7FFF as NVIDIA's conversion does it.
// Written without a branch so that loops over it vectorise.
QSTEP_HD inline Bf16 to_bf16(float x) {
#ifdef __CUDA_ARCH__
  return Bf16{static_cast<uint16_t>(pack_bf16(x, 0.0f))};
#else
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return Bf16{static_cast<uint16_t>(is_nan ? 0x7FFFu : rounded)};
#endif
}

QSTEP_HD inline uint32_t pack_bf16(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(both) : "f"(low), "f"(high));
  return both;
#else
  return uint32_t{to_bf16(low).bits} | uint32_t{to_bf16(high).bits} << 16;
#endif
}

}  // namespace qstep::precision
