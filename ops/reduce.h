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

constexpr int64_t reduce_chunks(int64_t n) { return (n + kReduceChunk - 1) / kReduceChunk; }

// sums [chunks of g]; g contiguous; both FP32.
inline void check_square_sums(const Tensor& sums, const Tensor& g) {
  expect_vector(sums, reduce_chunks(g.size()), "square_sums: sums");
  expect_vector(g, g.size(), "square_sums: g");
  expect_dtype(sums, Dtype::kF32, "square_sums: sums");
  expect_dtype(g, Dtype::kF32, "square_sums: g");
}

// norm [1]; sums contiguous; both FP32.
inline void check_norm_of_sums(const Tensor& norm, const Tensor& sums) {
  expect_vector(norm, 1, "norm_of_sums: norm");
  expect_vector(sums, sums.size(), "norm_of_sums: sums");
  expect_dtype(norm, Dtype::kF32, "norm_of_sums: norm");
  expect_dtype(sums, Dtype::kF32, "norm_of_sums: sums");
}

namespace cpu {

// out[0] = sum x / size.
void mean(const Tensor& out, const Tensor& x, Workspace& workspace);
// Squares are FP32: an element above 1.8e19 counts as infinite.
void square_sums(const Tensor& sums, const Tensor& g);
void norm_of_sums(const Tensor& norm, const Tensor& sums);

}  // namespace cpu

class CudaContext;
namespace cuda {

void mean(const Tensor& out, const Tensor& x, CudaContext& context);
void square_sums(const Tensor& sums, const Tensor& g, CudaContext& context);
void norm_of_sums(const Tensor& norm, const Tensor& sums, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
