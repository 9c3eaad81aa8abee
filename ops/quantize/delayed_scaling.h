// Delayed scaling (numerics 7.2; Transformer Engine, common/recipe/delayed_scaling.cu, the bulk
// update): the FP8 scale of a tensor from the amaxes of earlier steps.
//
// Per tensor t, with h = history[t] of L steps and new = amax[t] of the step that ends:
//   new != 0 (NaN too):  h[i] = h[i + 1] for 0 < i < L - 1,  h[L - 1] = new,  h[0] = 0
//   new == 0:            h stays, and so does the scale
//   max:                 a = max(old h[1 ..], new), a NaN left out
//   most_recent:         a = new
//   scale[t] = fl(fl(fp8_max[t] * 2^-margin) / a) where a is finite and > 0, else as it was;
//              an infinite scale becomes FLT_MAX
//   amax[t] = 0
// With a NaN factor the step's update was left out: amax[t] = 0, and that is all.
// h[0] is the place where Transformer Engine gathers the amax of the running step; here that is
// amax[t], and h[0] is never read. So the newest and the L - 1 steps before it count, and an
// infinity that has entered holds the scale until it has left.
#pragma once

#include <limits>

#include "ops/ops.h"
#include "precision/lanes.h"

namespace qstep::ops {

// history [n, L], L > 0; scale, amax, fp8_max n elements each; factor [1]; all FP32.
inline void check_update_delayed_scales(const Tensor& history, const Tensor& scale,
                                        const Tensor& amax, const Tensor& fp8_max,
                                        const Tensor& factor) {
  expect_dtype(history, Dtype::kF32, "update_delayed_scales: history");
  check(history.cols > 0, "update_delayed_scales: a history of no steps");
  expect_shape(history, history.rows, history.cols, "update_delayed_scales: history");
  for (const Tensor& x : {scale, amax, fp8_max}) {
    expect_dtype(x, Dtype::kF32, "update_delayed_scales: scale, amax and fp8_max");
    expect_vector(x, history.rows, "update_delayed_scales: one scale, amax and fp8_max per tensor");
  }
  expect_dtype(factor, Dtype::kF32, "update_delayed_scales: factor");
  expect_vector(factor, 1, "update_delayed_scales: factor");
}

// The scale from the amax that counts (0: none) and target = fl(fp8_max 2^-margin).
QSTEP_HD inline float delayed_scale(float scale, float used, float target) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (used > 0 && used < kInfinity) scale = target / used;
  return precision::magnitude(scale) == kInfinity ? std::numeric_limits<float>::max() : scale;
}

namespace cpu {

void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                           const Tensor& fp8_max, const Tensor& factor,
                           const precision::DelayedScaling& delayed);

}  // namespace cpu

class CudaContext;
namespace cuda {

void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                           const Tensor& fp8_max, const Tensor& factor,
                           const precision::DelayedScaling& delayed, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
