// The formulas of activation.h, once for a float (CUDA) and for sixteen (simd_lanes.h).
#pragma once

#include "ops/fast_math.h"
#include "precision/lanes.h"

namespace qstep::ops::activation_math {

using ops::sigmoid;
using precision::all;
using precision::fma;
using precision::max;
using precision::min;

inline constexpr float kTwoSqrt2OverPi = 1.59576912f;  // 2 sqrt(2 / pi)
inline constexpr float kCubic = 0.044715f;

template <class F>
QSTEP_HD_INLINE F gelu(F x) {
  const F inner = fma(all<F>(kCubic) * x * x, x, x);
  return x * sigmoid(all<F>(kTwoSqrt2OverPi) * inner);
}

// From 16 on the slope is 0 or 1 to the last bit; clamping keeps 0 * infinity out of x^2. The order
// of the arguments of min and max lets a NaN through.
template <class F>
QSTEP_HD_INLINE F gelu_slope(F x) {
  const F one = all<F>(1.0f);
  const F z = min(all<F>(16.0f), max(all<F>(-16.0f), x));
  const F square = z * z;
  const F s = sigmoid(all<F>(kTwoSqrt2OverPi) * fma(all<F>(kCubic) * square, z, z));
  const F inner_slope = all<F>(kTwoSqrt2OverPi) * fma(all<F>(3.0f * kCubic), square, one);
  return fma(z * inner_slope, s * (one - s), s);
}

template <class F>
QSTEP_HD_INLINE F relu(F x) {
  return max(all<F>(0.0f), x);  // a NaN stays one
}
template <class F>
QSTEP_HD_INLINE F relu2(F x) {
  return relu(x) * relu(x);
}
template <class F>
QSTEP_HD_INLINE F relu2_slope(F x) {
  return all<F>(2.0f) * relu(x);
}

template <class F>
QSTEP_HD_INLINE F swiglu(F g, F v) {
  return g * sigmoid(g) * v;
}
template <class F>
struct SwigluGradient {
  F dg, dv;
};
template <class F>
QSTEP_HD_INLINE SwigluGradient<F> swiglu_gradient(F dy, F g, F v) {
  const F one = all<F>(1.0f);
  const F s = sigmoid(g);
  return {dy * v * s * fma(g, one - s, one), dy * (g * s)};
}

}  // namespace qstep::ops::activation_math
