// Gradient of a linear layer's bias: db[o] (+)= sum_n dy[n,o].
#pragma once

#include "ops/ops.h"
#include "ops/workspace.h"

namespace qstep::ops {

// db [O] FP32, dy [N,O] FP32 or BF16.
inline void check_bias_backward(const Tensor& db, const Tensor& dy) {
  check(dy.data != nullptr || dy.size() == 0, "bias_backward: dy");
  expect_vector(db, dy.cols, "bias_backward: db");
  expect_dtype(db, Dtype::kF32, "bias_backward: db");
}

namespace cpu {

void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate, Workspace& workspace);

}  // namespace cpu

class CudaContext;
namespace cuda {

void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
