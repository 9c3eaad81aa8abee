// e^x and the logistic function of one float, by the special-function units on a GPU: for results
// in the bounded tier (activations, cross-entropy), where the exact polynomials of simd.h would
// take longer than the memory does.
#pragma once

#include <cmath>

#include "precision/hd.h"

namespace qstep::ops {

// Relative error below 2^-21 + |x| 2^-23: that of ex2.approx and of x log2(e), which rounds twice.
// Results below 2^-126 are zero on a GPU. Infinity above 88.8; a NaN stays one.
QSTEP_HD_INLINE float fast_exp(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
  return y;
#else
  return std::exp(x);
#endif
}

// 1 / (1 + e^-x): absolute error below 2^-22, as simd.h's. (The error of e^-x enters times
// s (1 - s) <= 1/4, |x| s (1 - s) < 0.23.)
QSTEP_HD_INLINE float sigmoid(float x) {
  const float below = 1.0f + fast_exp(-x);
#ifdef __CUDA_ARCH__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(below));  // within one ulp
  return y;
#else
  return 1.0f / below;
#endif
}

}  // namespace qstep::ops
