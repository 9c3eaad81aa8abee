// RMSNorm. Zhang and Sennrich, "Root mean square layer normalization", 2019.
//
//   y[n,c] = x[n,c] rstd[n] w[c],  rstd[n] = 1 / sqrt(mean_c x[n,c]^2 + eps)
//
// With g = dy w and h = x rstd:  dx = rstd (g - h mean_c(g h)),  dw[c] = sum_n dy h.
#pragma once

#include "ops/ops.h"
#include "ops/workspace.h"

namespace qstep::ops {

// y, x [N,C] and w [C] of one type; rstd [N] FP32.
inline void check_rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x,
                                  const Tensor& w) {
  expect_shape(y, x.rows, x.cols, "rmsnorm_forward: y");
  expect_vector(rstd, x.rows, "rmsnorm_forward: rstd");
  expect_vector(w, x.cols, "rmsnorm_forward: w");
  expect_dtype(y, x.dtype, "rmsnorm_forward: y");
  expect_dtype(rstd, Dtype::kF32, "rmsnorm_forward: rstd");
  expect_dtype(w, x.dtype, "rmsnorm_forward: w");
}

// The same, and sum, delta [N,C] of x's type.
inline void check_residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                           const Tensor& x, const Tensor& delta, const Tensor& w) {
  check_rmsnorm_forward(y, rstd, x, w);
  expect_shape(sum, x.rows, x.cols, "residual_rmsnorm_forward: sum");
  expect_shape(delta, x.rows, x.cols, "residual_rmsnorm_forward: delta");
  expect_dtype(sum, x.dtype, "residual_rmsnorm_forward: sum");
  expect_dtype(delta, x.dtype, "residual_rmsnorm_forward: delta");
}

// dx, dy, x [N,C] and w [C] of one type; dw [C] and rstd [N] FP32.
inline void check_rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy,
                                   const Tensor& x, const Tensor& w, const Tensor& rstd) {
  expect_shape(dx, x.rows, x.cols, "rmsnorm_backward: dx");
  expect_shape(dy, x.rows, x.cols, "rmsnorm_backward: dy");
  expect_vector(dw, x.cols, "rmsnorm_backward: dw");
  expect_vector(w, x.cols, "rmsnorm_backward: w");
  expect_vector(rstd, x.rows, "rmsnorm_backward: rstd");
  expect_dtype(dx, x.dtype, "rmsnorm_backward: dx");
  expect_dtype(dy, x.dtype, "rmsnorm_backward: dy");
  expect_dtype(dw, Dtype::kF32, "rmsnorm_backward: dw");
  expect_dtype(w, x.dtype, "rmsnorm_backward: w");
  expect_dtype(rstd, Dtype::kF32, "rmsnorm_backward: rstd");
}

namespace cpu {

// y may be x.
void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                     float eps, const Tensor& amax = {});
void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                              const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                              const Tensor& amax = {});
// dx may be dy.
void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                      const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                      Workspace& workspace, const Tensor& amax = {});

}  // namespace cpu

class CudaContext;
namespace cuda {

void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                     float eps, const Tensor& amax, CudaContext& context);
void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                              const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                              const Tensor& amax, CudaContext& context);
void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                      const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                      const Tensor& amax, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
