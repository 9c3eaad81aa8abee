// Zero, cast and add: element by element, rows may be strided.
#pragma once

#include <cstddef>
#include <span>

#include "ops/tensor.h"

namespace qstep::ops {

// y[r,c] = round(x[r,c]); FP32 and BF16 in either direction. y may be x where the types agree.
inline void check_cast(const Tensor& y, const Tensor& x) {
  expect_shape(y, x.rows, x.cols, "cast: y");
}

// y[r,c] = round(x[0][r,c] + (x[1][r,c] + ...)), from the last to the first, the sums in FP32; one
// type for all. y may be any of them.
inline constexpr size_t kMaxAddends = 4;  // what one pass reads
inline void check_add(const Tensor& y, std::span<const Tensor> x) {
  check(x.size() >= 2 && x.size() <= kMaxAddends, "add: takes two to four tensors");
  for (const Tensor& addend : x) {
    expect_shape(addend, y.rows, y.cols, "add: x");
    expect_dtype(addend, y.dtype, "add: x");
  }
}

// f.operator()<n>() for a number of addends that is known when it runs.
template <class F>
void dispatch_addends(size_t n, F&& f) {
  if (n == 2) return f.template operator()<2>();
  if (n == 3) return f.template operator()<3>();
  f.template operator()<4>();
}

namespace cpu {

void zero(const Tensor& x);
void cast(const Tensor& y, const Tensor& x);
void add(const Tensor& y, std::span<const Tensor> x);

}  // namespace cpu

class CudaContext;
namespace cuda {

void zero(const Tensor& x, CudaContext& context);
void cast(const Tensor& y, const Tensor& x, CudaContext& context);
void add(const Tensor& y, std::span<const Tensor> x, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
