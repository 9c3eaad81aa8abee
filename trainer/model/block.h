// One decoder block: attention and MLP, each behind a norm and added to the residual stream.
//
//   a = attn_out(attention(rope(qk_norm(qkv(norm1(x))))))      x  = stream in
//   m = down(activation(up(norm2(x + a))))                     stream out = (x + a) + m
#pragma once

#include <array>

#include "ops/ops.h"
#include "trainer/model/linear.h"
#include "trainer/model/norm.h"
#include "trainer/model/weights.h"

namespace qstep::trainer {

// What forward leaves for backward, [N, ...] of the compute type unless said otherwise. Of a
// tensor-parallel group, heads and MLP features are the rank's own, and so are the rows of the
// stream (tensor_parallel.h): N/t of them.
struct BlockActivations {
  ops::Tensor sum1, norm1, stats1;  // stream at the first norm [N/t, C], its output, [2, N/t] FP32
  ops::Tensor qkv;                  // after QK-norm and RoPE
  ops::Tensor qkv_raw, qk_rstd;     // before QK-norm; [N, H + K] FP32; only with QK-norm
  ops::Tensor attention, lse;       // [N, H D]; [B H, T] FP32
  ops::Tensor sum2, norm2, stats2;
  ops::Tensor up, act;  // [N, F or 2 F], [N, F]
};

// Gradients of activations, shared by all blocks.
struct BlockScratch {
  ops::Tensor d_norm;       // [N, C]
  ops::Tensor d_qkv;        // [N, (H + 2K) D]
  ops::Tensor d_attention;  // [N, H D]
  ops::Tensor d_up;         // [N, F or 2 F]
  ops::Tensor d_act;        // [N, F]
};

// model: the rank's share (tensor_share) of `tensor` ranks.
BlockActivations lay_out_block(ops::Arena& arena, const ModelConfig& model, int64_t batch,
                               int64_t seq_len, ops::Dtype dtype, int64_t tensor);
BlockScratch lay_out_block_scratch(ops::Arena& arena, const ModelConfig& model, int64_t n_tokens,
                                   ops::Dtype dtype);

// Keys and values of one block during generation, [max positions, K D].
struct KvCache {
  ops::Tensor k, v;
};

class Block {
 public:
  // layer: which block this is, from 0. delta [N, C]: where attention and MLP put what they add to
  // the stream; every block may share it, as the norm that comes next has read it before it is
  // written again. rope_table as ops.rope wants it; empty with learned positions. operands: of the
  // linear layers, in the order of LinearKind. group: the ranks that share the block; outlives it.
  Block(int64_t layer, const ModelConfig& model, const BlockWeights<ops::Tensor>& weights,
        const BlockActivations& activations, const ops::Tensor& delta,
        const ops::Tensor& rope_table, std::array<LinearOperands, kLinearsPerBlock> operands,
        TensorParallel& group);

  // The stream's tensors are this rank's own rows; shape: its own heads, all rows.
  Stream forward(ops::Ops& ops, const Stream& in, const ops::AttentionShape& shape);

  // d_stream [N, C]: gradient of the stream behind the block becomes that of the stream before it,
  // in this rank's own rows. Whoever made it left its amax at wanted_amax(), and `amax` is where
  // that of the block before is wanted; empty where nobody reads it.
  void backward(ops::Ops& ops, const ops::Tensor& d_stream, const BlockWeights<ops::Tensor>& grads,
                const BlockScratch& scratch, const ops::AttentionShape& shape,
                ops::Accumulate accumulate, const ops::Tensor& amax) const;
  ops::Tensor wanted_amax() const { return down_.wanted_amax(LinearTensor::kDy); }

  // Generation: forward for the positions behind `cache`'s first `first_position` ones.
  Stream forward_cached(ops::Ops& ops, const Stream& in, const ops::AttentionShape& shape,
                        const KvCache& cache, int64_t first_position);

 private:
  // qkv of the normed stream, with QK-norm and RoPE applied.
  ops::Tensor project_qkv(ops::Ops& ops, const Stream& in, const ops::AttentionShape& shape,
                          int64_t first_position);
  Stream forward_mlp(ops::Ops& ops, const Stream& in, int64_t n_tokens);

  int64_t layer_;
  ops::Activation activation_;
  float eps_;
  ops::Tensor q_norm_, k_norm_, delta_, rope_table_;
  BlockActivations a_;
  Norm norm1_, norm2_;
  Linear qkv_, attn_out_, up_, down_;
  TensorParallel* group_;
};

}  // namespace qstep::trainer
