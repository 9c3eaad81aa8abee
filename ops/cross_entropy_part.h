// Softmax cross-entropy over logits whose columns a group of P ranks holds together; natural log.
// Column c of a rank's logits [N, W] stands for token first_token + c; from token V on, padding.
//
//   part[0,n] = m = max_c x[n,c],  part[1,n] = s = sum_c exp(x[n,c] - m)
//   part[2,n] = the target's logit, 0 where another rank has it
//   loss[n] = log sum_p s_p exp(m_p - M) + (M - sum_p part_p[2,n]),  M = max_p m_p
//   lse[n]  = log sum_p s_p exp(m_p - M) + M
//   d loss[n] / d x[n,c] = exp(x[n,c] - lse[n]) - [first_token + c = target[n]]
//
// A rank with nothing but padding, or -inf, gives -inf, 0 and the target's logit, which adds
// nothing. A row with a NaN or an infinite maximum on any rank gives a non-finite loss. A target
// outside [0, V) is an internal Error, thrown before anything is written.
//
// lse is rounded to FP32: the gradient of a row is off by a factor of up to 1 + 2^-24 |lse|, what
// moving each of its logits by half a unit in the last place can do. cross_entropy, which keeps M
// and the sum apart, is not.
#pragma once

#include "ops/ops.h"

namespace qstep::ops {

// logits [N,W] FP32 or BF16, targets [N] int32.
inline void check_cross_entropy_columns(const Tensor& logits, const Tensor& targets,
                                        int64_t first_token, int64_t vocab) {
  check(logits.data != nullptr || logits.size() == 0, "cross_entropy_part: logits");
  check(first_token >= 0 && vocab > 0, "cross_entropy_part: first_token or vocab");
  expect_vector(targets, logits.rows, "cross_entropy_part: targets");
  expect_dtype(targets, Dtype::kI32, "cross_entropy_part: targets");
}

// part [3,N] FP32.
inline void check_cross_entropy_part(const Tensor& part, const Tensor& logits,
                                     const Tensor& targets, int64_t first_token, int64_t vocab) {
  check_cross_entropy_columns(logits, targets, first_token, vocab);
  expect_shape(part, 3, logits.rows, "cross_entropy_part: part");
  expect_dtype(part, Dtype::kF32, "cross_entropy_part: part");
}

// loss [N], lse [N], parts [3 P,N], all FP32.
inline void check_cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) {
  check(parts.rows > 0 && parts.rows % 3 == 0, "cross_entropy_join: parts");
  expect_shape(parts, parts.rows, parts.cols, "cross_entropy_join: parts");
  expect_vector(loss, parts.cols, "cross_entropy_join: loss");
  expect_vector(lse, parts.cols, "cross_entropy_join: lse");
  for (const Tensor& x : {loss, lse, parts}) expect_dtype(x, Dtype::kF32, "cross_entropy_join");
}

// lse [N] FP32.
inline void check_cross_entropy_part_backward(const Tensor& logits, const Tensor& lse,
                                              const Tensor& targets, int64_t first_token,
                                              int64_t vocab) {
  check_cross_entropy_columns(logits, targets, first_token, vocab);
  expect_vector(lse, logits.rows, "cross_entropy_part_backward: lse");
  expect_dtype(lse, Dtype::kF32, "cross_entropy_part_backward: lse");
}

namespace cpu {

void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                        int64_t first_token, int64_t vocab);
void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts);
// logits become scale * d loss / d logits; padding becomes zero.
void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                 int64_t first_token, int64_t vocab, float scale);

}  // namespace cpu

class CudaContext;
namespace cuda {

void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                        int64_t first_token, int64_t vocab, CudaContext& context);
void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts,
                        CudaContext& context);
void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                 int64_t first_token, int64_t vocab, float scale,
                                 CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
