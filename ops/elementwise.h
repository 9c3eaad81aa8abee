// Zero, cast and add: element by element, rows may be strided.
#pragma once

#include "ops/tensor.h"

namespace qstep::ops {

// y[r,c] = round(x[r,c]); FP32 and BF16 in either direction. y may be x where the types agree.
inline void check_cast(const Tensor& y, const Tensor& x) {
  expect_shape(y, x.rows, x.cols, "cast: y");
}

// y[r,c] = round(a[r,c] + b[r,c]), the sum in FP32; one type for all three. y may be a or b.
inline void check_add(const Tensor& y, const Tensor& a, const Tensor& b) {
  expect_shape(y, a.rows, a.cols, "add: y");
  expect_shape(b, a.rows, a.cols, "add: b");
  expect_dtype(y, a.dtype, "add: y");
  expect_dtype(b, a.dtype, "add: b");
}

namespace cpu {

void zero(const Tensor& x);
void cast(const Tensor& y, const Tensor& x);
void add(const Tensor& y, const Tensor& a, const Tensor& b);

}  // namespace cpu

class CudaContext;
namespace cuda {

void zero(const Tensor& x, CudaContext& context);
void cast(const Tensor& y, const Tensor& x, CudaContext& context);
void add(const Tensor& y, const Tensor& a, const Tensor& b, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
