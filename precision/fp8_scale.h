// FP32 scales of the FP8 formats (numerics 7.3, 7.5): scale = fp8_max / amax, 1 where amax is 0,
// infinite or NaN; q = fp8(fl(x scale)); scale_inv = fl(1 / scale).
#pragma once

#include "precision/nvfp4.h"

namespace qstep::precision {

// `largest` stands for a scale that overflows: FLT_MAX per tensor, the largest value of the
// source's type per block. pow2 rounds the scale down to a power of two.
template <class F>
QSTEP_HD inline F fp8_scale(F amax, float fp8_max, float largest, bool pow2) {
  const F one = all<F>(1.0f);
  F scale = min(all<F>(fp8_max) / amax, all<F>(largest));
  if (pow2) scale = from_bits(bits(scale) & all_bits<F>(0xFF800000u));
  const F finite = select(less_equal(amax, all<F>(kMaxFloat)), scale, one);
  return select(less(all<F>(0.0f), amax), finite, one);
}

}  // namespace qstep::precision
