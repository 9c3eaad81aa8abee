// Softmax cross-entropy, natural log.
//
//   loss[n] = log sum_{v<V} exp(x[n,v]) - x[n,target[n]]
//   d loss[n] / d x[n,v] = exp(x[n,v]) / sum_w exp(x[n,w]) - [v = target[n]]
//
// A row with a NaN or an infinite maximum gives a non-finite loss. A target outside [0, V) is an
// internal Error (the loader has checked the store), thrown before anything is written.
#pragma once

#include "ops/ops.h"

namespace qstep::ops {

// loss [N] FP32, logits [N,Vp] FP32 or BF16 with V <= Vp, targets [N] int32.
inline void check_cross_entropy(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                                int64_t vocab) {
  check(logits.data != nullptr || logits.size() == 0, "cross_entropy: logits");
  check(vocab > 0 && vocab <= logits.cols, "cross_entropy: vocab exceeds the columns of logits");
  expect_vector(loss, logits.rows, "cross_entropy: loss");
  expect_vector(targets, logits.rows, "cross_entropy: targets");
  expect_dtype(loss, Dtype::kF32, "cross_entropy: loss");
  expect_dtype(targets, Dtype::kI32, "cross_entropy: targets");
}

namespace cpu {

void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                           int64_t vocab);
// logits become scale * d loss / d logits; columns V..Vp-1 become zero.
void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                            int64_t vocab, float scale);

}  // namespace cpu

class CudaContext;
namespace cuda {

void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                           int64_t vocab, CudaContext& context);
void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                            int64_t vocab, float scale, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
