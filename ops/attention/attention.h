// Causal attention with grouped queries: o = softmax(q k^T / sqrt(D)) v, tile by tile with a
// running maximum and sum, so that no T x T matrix is ever stored. Dao, "FlashAttention-2" (2023);
// the running softmax is from Milakov and Gimelshein (2018). Query head h reads key/value head
// h / (H / K).
//
//   s[i,j] = q[i] . k[j] / sqrt(D), j <= i           o[i] = sum_j p[i,j] v[j]
//   p[i,j] = exp(s[i,j] - lse[i])                    delta[i] = sum_d do[i,d] o[i,d]
//   ds[i,j] = p[i,j] (do[i] . v[j] - delta[i])       dv[j] = sum_i p[i,j] do[i]
//   dq[i] = sum_j ds[i,j] k[j] / sqrt(D)             dk[j] = sum_i ds[i,j] q[i] / sqrt(D)
//
// Numerics. All sums run in FP32. With BF16 tensors on a processor that multiplies BF16 pairs, p
// and ds are rounded to BF16 before they meet v, do, q and k, as GPU kernels do. That moves each
// term of a sum by at most u = 2^-8 of itself, hence
//   |error of o[i]|  <= u sum_j p[i,j] |v[j]|  + the rounding of o itself,
//   |error of dv[j]| <= u sum_i p[i,j] |do[i]| + ..., and likewise dq and dk with |ds|.
// Otherwise the products are FP32 and only the sums' own error, (number of terms) 2^-24, remains.
//
// A row's bits depend on its own q and on the k and v up to its position: not on the batch around
// it, the number of threads, or T; attention_cached gives the bits of attention_forward. NaN and
// infinity spread to the rows that see them; as 0 times NaN is NaN they may also reach other rows
// of their tile: o up to seven positions away, gradients up to 31.
#pragma once

#include "ops/ops.h"
#include "ops/tensor.h"
#include "ops/workspace.h"

namespace qstep::ops {

inline constexpr int64_t kMaxHeadDim = 256;

// The shape itself, and qkv[N, (H + 2 K) D].
void check_attention_shape(const Tensor& qkv, const AttentionShape& shape, std::string_view op);
// o[N, H D], lse[B H, T].
void check_attention(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                     const AttentionShape& shape);
void check_attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv,
                              const Tensor& o, const Tensor& lse, const AttentionShape& shape);
// o[T, H D], caches [max_T, K D] with first_position + T <= max_T; B = 1.
void check_attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                            const Tensor& qkv, const AttentionShape& shape, int64_t first_position);

namespace cpu {

// Scratch: a few tiles per thread.
void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                       const AttentionShape& shape, Workspace& workspace);
// Scratch: O(T D) per thread, and dk, dv per query head in FP32 where K < H: O(B H T D).
void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                        const Tensor& lse, const AttentionShape& shape, Workspace& workspace);
void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                      const Tensor& qkv, const AttentionShape& shape, int64_t first_position,
                      Workspace& workspace);

}  // namespace cpu

class CudaContext;

// A row at a time, FP32 products (ops/attention/attention_kernels.h): any shape and type.
namespace cuda {

void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                       const AttentionShape& shape, CudaContext& context);
// Scratch: delta, FP32 [B H, T].
void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                        const Tensor& lse, const AttentionShape& shape, CudaContext& context);
void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                      const Tensor& qkv, const AttentionShape& shape, int64_t first_position,
                      CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
