// LayerNorm. Ba, Kiros and Hinton, "Layer normalization", 2016.
//
//   y[n,c] = h[n,c] w[c] + b[c],  h = (x - mean[n]) rstd[n],  rstd[n] = 1 / sqrt(var_c x[n,c] +
//   eps)
//
// with the biased variance, taken in a second pass over the row about its mean. With g = dy w:
// dx = rstd (g - mean_c g - h mean_c(g h)),  dw[c] = sum_n dy h,  db[c] = sum_n dy.
#pragma once

#include "ops/ops.h"
#include "ops/workspace.h"

namespace qstep::ops {

// y, x [N,C] and w, b [C] of one type; mean, rstd [N] FP32.
inline void check_layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd,
                                    const Tensor& x, const Tensor& w, const Tensor& b) {
  expect_shape(y, x.rows, x.cols, "layernorm_forward: y");
  expect_vector(mean, x.rows, "layernorm_forward: mean");
  expect_vector(rstd, x.rows, "layernorm_forward: rstd");
  expect_vector(w, x.cols, "layernorm_forward: w");
  expect_vector(b, x.cols, "layernorm_forward: b");
  expect_dtype(y, x.dtype, "layernorm_forward: y");
  expect_dtype(mean, Dtype::kF32, "layernorm_forward: mean");
  expect_dtype(rstd, Dtype::kF32, "layernorm_forward: rstd");
  expect_dtype(w, x.dtype, "layernorm_forward: w");
  expect_dtype(b, x.dtype, "layernorm_forward: b");
}

// The same, and sum, delta [N,C] of x's type.
inline void check_residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                             const Tensor& rstd, const Tensor& x,
                                             const Tensor& delta, const Tensor& w,
                                             const Tensor& b) {
  check_layernorm_forward(y, mean, rstd, x, w, b);
  expect_shape(sum, x.rows, x.cols, "residual_layernorm_forward: sum");
  expect_shape(delta, x.rows, x.cols, "residual_layernorm_forward: delta");
  expect_dtype(sum, x.dtype, "residual_layernorm_forward: sum");
  expect_dtype(delta, x.dtype, "residual_layernorm_forward: delta");
}

// dx, dy, x [N,C] and w [C] of one type; dw, db [C] and mean, rstd [N] FP32.
inline void check_layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db,
                                     const Tensor& dy, const Tensor& x, const Tensor& w,
                                     const Tensor& mean, const Tensor& rstd) {
  expect_shape(dx, x.rows, x.cols, "layernorm_backward: dx");
  expect_shape(dy, x.rows, x.cols, "layernorm_backward: dy");
  expect_vector(dw, x.cols, "layernorm_backward: dw");
  expect_vector(db, x.cols, "layernorm_backward: db");
  expect_vector(w, x.cols, "layernorm_backward: w");
  expect_vector(mean, x.rows, "layernorm_backward: mean");
  expect_vector(rstd, x.rows, "layernorm_backward: rstd");
  expect_dtype(dx, x.dtype, "layernorm_backward: dx");
  expect_dtype(dy, x.dtype, "layernorm_backward: dy");
  expect_dtype(dw, Dtype::kF32, "layernorm_backward: dw");
  expect_dtype(db, Dtype::kF32, "layernorm_backward: db");
  expect_dtype(w, x.dtype, "layernorm_backward: w");
  expect_dtype(mean, Dtype::kF32, "layernorm_backward: mean");
  expect_dtype(rstd, Dtype::kF32, "layernorm_backward: rstd");
}

namespace cpu {

// y may be x.
void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                       const Tensor& w, const Tensor& b, float eps, const Tensor& amax = {});
void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                const Tensor& w, const Tensor& b, float eps,
                                const Tensor& amax = {});
// dx may be dy. dw_mode holds for dw and db.
void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                        const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                        Accumulate dx_mode, Accumulate dw_mode, Workspace& workspace,
                        const Tensor& amax = {});

}  // namespace cpu

class CudaContext;
namespace cuda {

void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                       const Tensor& w, const Tensor& b, float eps, const Tensor& amax,
                       CudaContext& context);
void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                const Tensor& w, const Tensor& b, float eps, const Tensor& amax,
                                CudaContext& context);
void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                        const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                        Accumulate dx_mode, Accumulate dw_mode, const Tensor& amax,
                        CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
