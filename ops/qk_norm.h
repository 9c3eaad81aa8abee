// RMSNorm over every query head and every key head, before attention; v passes through.
// Henry et al., "Query-key normalization" (2020); Dehghani et al., "ViT-22B" (2023).
//   y[n,h,d] = x[n,h,d] rstd[n,h] w[d], rstd[n,h] = 1 / sqrt(mean_d x[n,h,d]^2 + eps)
//   dx = rstd (w dy - x rstd^2 mean_d(w dy x)), dw[d] = sum_n,h dy[n,h,d] x[n,h,d] rstd[n,h]
// with w = wq for the H query heads, wk for the K key heads. Sums over rows run in fixed chunks.
#pragma once

#include "ops/ops.h"
#include "ops/tensor.h"
#include "ops/workspace.h"

namespace qstep::ops {

// y, qkv [N, (H + 2 K) D] of one type; wq, wk [1, D] of the same type; rstd[N, H + K] FP32.
void check_qk_norm(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                   const Tensor& wk, const AttentionShape& shape);
// And dwq, dwk [1, D] FP32.
void check_qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk,
                            const Tensor& qkv, const Tensor& wq, const Tensor& wk,
                            const Tensor& rstd, const AttentionShape& shape);

namespace cpu {

void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                     const Tensor& wk, const AttentionShape& shape, float eps);
// dqkv holds d of the output and becomes d of the input; its v part stays.
void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                      const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                      const AttentionShape& shape, Accumulate dw_mode, Workspace& workspace);

}  // namespace cpu

class CudaContext;
namespace cuda {

void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                     const Tensor& wk, const AttentionShape& shape, float eps,
                     CudaContext& context);
void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                      const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                      const AttentionShape& shape, Accumulate dw_mode, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
