// Attention on a GPU: cuDNN's fused kernels for BF16 tensors where it has them, otherwise the row
// kernels of ops/attention/attention_kernels.h, which take any shape and are slower by orders of
// magnitude. The choice is made once for each shape and kept, with the reason; so is the plan.
//
// Numerics of cuDNN's kernels: p and ds are rounded to BF16 before they meet v, do, q and k, as in
// ops/attention/attention.h; with grouped queries dk and dv of each query head may be, before they
// are added up. Every run gives the same bits; those of a row may depend on T and on the number of
// sequences and heads, by which the library chooses its kernel. On Hopper the same bits cost
// scratch for ds, 2 B H T^2 bytes: where they would exceed `scratch_limit`, the backward pass goes
// over parts of the sequences and heads, which do not know of each other.
#pragma once

#include <memory>
#include <string>

#include "ops/attention/attention_part.h"
#include "ops/cuda/cuda_context.h"
#include "ops/ops.h"

namespace qstep::ops::cuda {

class Attention {
 public:
  explicit Attention(CudaContext& context, int64_t scratch_limit = kAttentionScratchLimit);
  ~Attention();

  void forward(const Tensor& o, const Tensor& lse, const Tensor& qkv, const AttentionShape& shape);
  void backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                const Tensor& lse, const AttentionShape& shape);

  // Which kernels take tensors without gaps between their rows: "cuDNN 9.19.0, engine 6, 128 MiB of
  // scratch", or "plain FP32 kernels: " and why.
  std::string path(const AttentionShape& shape, Dtype dtype, Direction direction);

 private:
  struct Plans;
  std::unique_ptr<Plans> plans_;
};

}  // namespace qstep::ops::cuda
