// Sums over whole tensors in a fixed order: chunks of kReduceChunk elements in FP32 (sixteen lanes,
// four running sums each), the chunks' sums one after the other in FP64. Same bits for any number
// of threads.
#pragma once

#include "ops/ops.h"
#include "ops/workspace.h"

namespace qstep::ops {

inline constexpr int64_t kReduceChunk = 4096;

// out [1]; x contiguous, at least one element; both FP32.
inline void check_mean(const Tensor& out, const Tensor& x) {
  expect_vector(out, 1, "mean: out");
  expect_vector(x, x.size(), "mean: x");
  expect_dtype(out, Dtype::kF32, "mean: out");
  expect_dtype(x, Dtype::kF32, "mean: x");
  check(x.size() > 0, "mean: x has no elements");
}

// norm [1]; g contiguous; both FP32.
inline void check_grad_norm(const Tensor& norm, const Tensor& g) {
  expect_vector(norm, 1, "grad_norm: norm");
  expect_vector(g, g.size(), "grad_norm: g");
  expect_dtype(norm, Dtype::kF32, "grad_norm: norm");
  expect_dtype(g, Dtype::kF32, "grad_norm: g");
}

namespace cpu {

// out[0] = sum x / size.
void mean(const Tensor& out, const Tensor& x, Workspace& workspace);
// norm[0] = sqrt(sum g^2). Squares are FP32: an element above 1.8e19 counts as infinite.
void grad_norm(const Tensor& norm, const Tensor& g, Workspace& workspace);

}  // namespace cpu
}  // namespace qstep::ops
