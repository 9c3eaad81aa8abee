// The feed-forward layer's non-linearities.
//
//   gelu    y = x s(2u), u = sqrt(2/pi) (x + 0.044715 x^3)   Hendrycks and Gimpel, 2016 (tanh form:
//           1/2 (1 + tanh u) = s(2u))      dy/dx = s + 2x s (1 - s) u'
//   relu2   y = max(x, 0)^2                                  So et al., "Primer", 2021
//   swiglu  y = g s(g) v, x = [g: F | v: F]                  Shazeer, "GLU variants", 2020
//           dg = dy v s (1 + g (1 - s)),  dv = dy g s
//
// with s the logistic function. In place is allowed wherever the shapes agree: y may be x, dx may
// be x or dy.
#pragma once

#include "ops/ops.h"

namespace qstep::ops {

// Columns of x for F columns of y.
inline int64_t activation_input_width(Activation kind, int64_t width) {
  return kind == Activation::kSwiglu ? 2 * width : width;
}

// y [N,F], x [N,F] or (swiglu) [N,2F], one type.
inline void check_activation_forward(const Tensor& y, const Tensor& x, Activation kind) {
  expect_shape(x, y.rows, activation_input_width(kind, y.cols), "activation_forward: x");
  expect_dtype(y, x.dtype, "activation_forward: y");
}

// dy [N,F]; dx, x [N,F] or (swiglu) [N,2F]; one type.
inline void check_activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x,
                                      Activation kind) {
  expect_shape(x, dy.rows, activation_input_width(kind, dy.cols), "activation_backward: x");
  expect_shape(dx, x.rows, x.cols, "activation_backward: dx");
  expect_dtype(dx, x.dtype, "activation_backward: dx");
  expect_dtype(dy, x.dtype, "activation_backward: dy");
}

namespace cpu {

void activation_forward(const Tensor& y, const Tensor& x, Activation kind, const Tensor& amax = {});
void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                         const Tensor& amax = {});

}  // namespace cpu

class CudaContext;
namespace cuda {

void activation_forward(const Tensor& y, const Tensor& x, Activation kind, const Tensor& amax,
                        CudaContext& context);
void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                         const Tensor& amax, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
