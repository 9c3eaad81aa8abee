// Token and position embeddings. Row r of the table belongs to token first_token + r.
//
//   forward   x[n] = wte[tokens[n] - first_token] (+ wpe[first_position + n % T])
//   backward  dwte[tokens[n] - first_token] += dx[n]
//             dwpe[t] (+)= sum over n with n % T = t of dx[n]
//
// A token without a row is taken for another rank's: zeros in its place, no gradient. The sum over
// the ranks of a group is then what the whole table gives. How large the vocabulary is, only the
// loader knows, which has checked the store; a negative token is an internal Error.
#pragma once

#include <algorithm>

#include "ops/ops.h"

namespace qstep::ops {

// x [N,C], wte [rows,C], wpe [P,C] or empty, one type; tokens [N] int32.
inline void check_embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                                    int64_t first_token, const Tensor& wpe, int64_t seq_len,
                                    int64_t first_position) {
  check(first_token >= 0, "embedding_forward: first_token");
  check(seq_len > 0 && first_position >= 0, "embedding_forward: seq_len or first_position");
  expect_vector(tokens, x.rows, "embedding_forward: tokens");
  expect_shape(wte, wte.rows, x.cols, "embedding_forward: wte");
  expect_dtype(tokens, Dtype::kI32, "embedding_forward: tokens");
  expect_dtype(wte, x.dtype, "embedding_forward: wte");
  if (!wpe) return;
  expect_shape(wpe, wpe.rows, x.cols, "embedding_forward: wpe");
  expect_dtype(wpe, x.dtype, "embedding_forward: wpe");
  check(first_position + std::min(seq_len, x.rows) <= wpe.rows,
        "embedding_forward: a position lies outside wpe");
}

// dx [N,C] FP32 or BF16; dwte [rows,C] and dwpe [P,C] (or empty) FP32; tokens [N] int32.
inline void check_embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                                     const Tensor& dx, const Tensor& tokens, int64_t seq_len) {
  check(first_token >= 0, "embedding_backward: first_token");
  check(seq_len > 0, "embedding_backward: seq_len");
  expect_vector(tokens, dx.rows, "embedding_backward: tokens");
  expect_shape(dwte, dwte.rows, dx.cols, "embedding_backward: dwte");
  expect_dtype(tokens, Dtype::kI32, "embedding_backward: tokens");
  expect_dtype(dwte, Dtype::kF32, "embedding_backward: dwte");
  if (!dwpe) return;
  expect_shape(dwpe, dwpe.rows, dx.cols, "embedding_backward: dwpe");
  expect_dtype(dwpe, Dtype::kF32, "embedding_backward: dwpe");
  check(std::min(seq_len, dx.rows) <= dwpe.rows,
        "embedding_backward: a position lies outside dwpe");
}

namespace cpu {

void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                       int64_t first_token, const Tensor& wpe, int64_t seq_len,
                       int64_t first_position);
// Only the rows of dwte whose tokens occur are touched.
void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                        const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                        Accumulate dwpe_mode);

}  // namespace cpu

class CudaContext;
namespace cuda {

void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                       int64_t first_token, const Tensor& wpe, int64_t seq_len,
                       int64_t first_position, CudaContext& context);
void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                        const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                        Accumulate dwpe_mode, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
