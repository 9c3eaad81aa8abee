// The least that each operation of ops.h has to do, from its arguments: what its time is bound by
// at the peaks of a machine (qstep bench ops).
//
// bytes: every tensor that it reads and every one that it writes passes through memory once; one
//   that it changes in place, or adds to, passes twice. What an implementation reads again (a
//   quantizer behind the amax of its tensor, a product whose operand leaves the cache) is its own
//   loss. Tensors that a cache still holds make an operation faster than this bound.
// flops: of matrix products alone, GEMMs and attention over the causal triangle, a multiply-add
//   being two. All other operations compute a few flops per element, less than they wait for bytes.
//
// Each function has the arguments of the operation, as far as the work follows from them.
#pragma once

#include <span>
#include <string>

#include "ops/ops.h"

namespace qstep::trainer {

struct OpWork {
  double flops = 0, bytes = 0;
  ops::Dtype type = ops::Dtype::kF32;  // of the elements that the flops multiply
  std::string kind;                    // of a quantizer: what it makes
};

// Operations that read these tensors, or write them, and nothing else: the elementwise ones, norms
// and sums. One that is changed in place stands twice.
OpWork passes(std::initializer_list<ops::Tensor> tensors);
// x once, y.
OpWork add_work(const ops::Tensor& y, std::span<const ops::Tensor> x);
// A tensor that a gradient is written to, or added to.
OpWork gradient(const ops::Tensor& g, ops::Accumulate accumulate);

inline OpWork operator+(OpWork a, const OpWork& b) {
  a.flops += b.flops;
  a.bytes += b.bytes;
  return a;
}

// 2 m n k flops; a, b, their tile scales, the bias, d.
OpWork gemm_work(const ops::Tensor& d, const ops::Operand& a, const ops::Operand& b,
                 ops::Accumulate accumulate, const ops::Tensor& bias);
// x once; the values of both operands, or of one where they share them, with their scales.
OpWork quantize_work(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                     const ops::Tensor& x);
// The rows of the table that the tokens name (N of them, or the whole table where that is less),
// x, the first T positions.
OpWork embedding_forward_work(const ops::Tensor& x, const ops::Tensor& tokens,
                              const ops::Tensor& wte, const ops::Tensor& wpe, int64_t seq_len);
// The same rows of dwte, read and written; dx; dwpe, all of it, or T rows of it read and written.
OpWork embedding_backward_work(const ops::Tensor& dwte, const ops::Tensor& dwpe,
                               const ops::Tensor& dx, const ops::Tensor& tokens, int64_t seq_len,
                               ops::Accumulate dwpe_mode);
// Queries and keys in and out, values and the output's values too.
OpWork qk_norm_forward_work(const ops::Tensor& y, const ops::Tensor& rstd, const ops::Tensor& qkv,
                            const ops::Tensor& wq, const ops::Tensor& wk);
// d of queries and keys in place, queries and keys; the values' part stays as it is.
OpWork qk_norm_backward_work(const ops::Tensor& dwq, const ops::Tensor& dwk, const ops::Tensor& qkv,
                             const ops::Tensor& rstd, const ops::AttentionShape& shape,
                             ops::Accumulate dw_mode);
// Queries and keys in place, T rows of the table.
OpWork rope_work(const ops::Tensor& qkv, const ops::Tensor& table,
                 const ops::AttentionShape& shape);
// q k^T and p v: 2 N H D (T + 1) flops.
OpWork attention_forward_work(const ops::Tensor& o, const ops::Tensor& lse, const ops::Tensor& qkv,
                              const ops::AttentionShape& shape);
// dv, dp, dq, dk: twice the flops of forward. That scores are computed again is not among them.
OpWork attention_backward_work(const ops::Tensor& dqkv, const ops::Tensor& d_o,
                               const ops::Tensor& qkv, const ops::Tensor& o, const ops::Tensor& lse,
                               const ops::AttentionShape& shape);
// T new rows against P cached ones and themselves: 2 H D T (2 P + T + 1) flops.
OpWork attention_cached_work(const ops::Tensor& o, const ops::Tensor& qkv,
                             const ops::AttentionShape& shape, int64_t first_position);
// g; master, m and v read and written; w where it is not the master.
OpWork adamw_work(const ops::Tensor& w, const ops::Tensor& master, const ops::Tensor& m,
                  const ops::Tensor& v, const ops::Tensor& grad);

}  // namespace qstep::trainer
