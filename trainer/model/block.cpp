#include "trainer/model/block.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::AttentionShape;
using ops::Direction;
using ops::Dtype;
using ops::Tensor;

BlockActivations lay_out_block(ops::Arena& arena, const ModelConfig& model, int64_t batch,
                               int64_t seq_len, Dtype dtype, int64_t tensor) {
  const int64_t N = batch * seq_len, C = model.width;
  const auto take = [&](int64_t cols) { return arena.take("activations", dtype, N, cols); };
  const auto take_own = [&] { return arena.take("activations", dtype, N / tensor, C); };
  const auto stats = [&](int64_t rows, int64_t cols) {
    return arena.take("activations", Dtype::kF32, rows, cols);
  };
  BlockActivations a;
  a.sum1 = take_own();
  a.norm1 = take(C);
  a.stats1 = stats(2, N / tensor);
  a.qkv = take(model.qkv_width());
  if (model.qk_norm) {
    a.qkv_raw = take(model.qkv_width());
    a.qk_rstd = stats(N, model.n_heads + model.n_kv_heads);
  }
  a.attention = take(model.q_width());
  a.lse = stats(batch * model.n_heads, seq_len);
  a.sum2 = take_own();
  a.norm2 = take(C);
  a.stats2 = stats(2, N / tensor);
  a.up = take(model.up_width());
  a.act = take(model.ffn_width);
  return a;
}

BlockScratch lay_out_block_scratch(ops::Arena& arena, const ModelConfig& model, int64_t n_tokens,
                                   Dtype dtype) {
  const auto take = [&](int64_t cols) {
    return arena.take("activation gradients", dtype, n_tokens, cols);
  };
  return {.d_norm = take(model.width),
          .d_qkv = take(model.qkv_width()),
          .d_attention = take(model.q_width()),
          .d_up = take(model.up_width()),
          .d_act = take(model.ffn_width)};
}

Block::Block(int64_t layer, const ModelConfig& model, const BlockWeights<Tensor>& w,
             const BlockActivations& activations, const Tensor& delta, const Tensor& rope_table,
             std::array<LinearOperands, kLinearsPerBlock> operands, TensorParallel& group)
    : layer_(layer),
      activation_(model.activation),
      eps_(static_cast<float>(model.norm_eps)),
      q_norm_(w.q_norm),
      k_norm_(w.k_norm),
      delta_(delta),
      rope_table_(rope_table),
      a_(activations),
      norm1_(model.norm, eps_, w.norm1, w.norm1_bias, activations.stats1),
      norm2_(model.norm, eps_, w.norm2, w.norm2_bias, activations.stats2),
      qkv_(w.qkv, w.qkv_bias, std::move(operands[0]), LinearRole::kColumnParallel, group),
      attn_out_(w.attn_out, w.attn_out_bias, std::move(operands[1]), LinearRole::kRowParallel,
                group),
      up_(w.up, w.up_bias, std::move(operands[2]), LinearRole::kColumnParallel, group),
      down_(w.down, w.down_bias, std::move(operands[3]), LinearRole::kRowParallel, group),
      group_(&group) {
  Linear* const linears[] = {&qkv_, &attn_out_, &up_, &down_};
  for (size_t i = 0; i < kLinearLabels.size(); ++i) linears[i]->set_labels(layer, kLinearLabels[i]);
}

Tensor Block::project_qkv(ops::Ops& ops, const Stream& in, const AttentionShape& shape,
                          int64_t first_position) {
  const int64_t N = shape.n_tokens();
  const Tensor norm1 = a_.norm1.row_range(0, N), qkv = a_.qkv.row_range(0, N);
  ops.label(layer_, kNormLabel);
  const Tensor amax = qkv_.wanted_amax(LinearTensor::kX);
  norm1_.forward(ops, a_.sum1.row_range(0, in.x.rows), group_->own_rows(norm1), in, amax);
  if (q_norm_) {
    const Tensor raw = a_.qkv_raw.row_range(0, N);
    qkv_.forward(ops, raw, norm1, amax);
    ops.label(layer_, kAttentionLabel);
    ops.qk_norm_forward(qkv, a_.qk_rstd.row_range(0, N), raw, q_norm_, k_norm_, shape, eps_);
  } else {
    qkv_.forward(ops, qkv, norm1, amax);
  }
  ops.label(layer_, kAttentionLabel);
  if (rope_table_) ops.rope(qkv, rope_table_, shape, first_position, Direction::kForward);
  return qkv;
}

Stream Block::forward_mlp(ops::Ops& ops, const Stream& in, int64_t N) {
  const Tensor sum2 = a_.sum2.row_range(0, in.x.rows), norm2 = a_.norm2.row_range(0, N);
  const Tensor up = a_.up.row_range(0, N), act = a_.act.row_range(0, N);
  const Tensor delta = delta_.row_range(0, N);
  ops.label(layer_, kNormLabel);
  const Tensor norm_amax = up_.wanted_amax(LinearTensor::kX);
  norm2_.forward(ops, sum2, group_->own_rows(norm2), in, norm_amax);
  up_.forward(ops, up, norm2, norm_amax);
  ops.label(layer_, kActivationLabel);
  const Tensor act_amax = down_.wanted_amax(LinearTensor::kX);
  ops.activation_forward(act, up, activation_, act_amax);
  down_.forward(ops, delta, act, act_amax);
  return {sum2, group_->own_rows(delta)};
}

Stream Block::forward(ops::Ops& ops, const Stream& in, const AttentionShape& shape) {
  const Tensor qkv = project_qkv(ops, in, shape, 0);
  ops.attention_forward(a_.attention, a_.lse, qkv, shape);
  attn_out_.forward(ops, delta_, a_.attention);
  return forward_mlp(ops, {in.delta ? a_.sum1 : in.x, group_->own_rows(delta_)}, shape.n_tokens());
}

void Block::backward(ops::Ops& ops, const Tensor& d_stream, const BlockWeights<Tensor>& g,
                     const BlockScratch& s, const AttentionShape& shape, Accumulate accumulate,
                     const Tensor& amax) const {
  const Tensor d_own = group_->own_rows(d_stream), d_norm_own = group_->own_rows(s.d_norm);
  down_.backward(ops, s.d_act, g.down, g.down_bias, d_stream, accumulate, wanted_amax());
  ops.label(layer_, kActivationLabel);
  const Tensor act_amax = up_.wanted_amax(LinearTensor::kDy);
  ops.activation_backward(s.d_up, s.d_act, a_.up, activation_, act_amax);
  up_.backward(ops, s.d_norm, g.up, g.up_bias, s.d_up, accumulate, act_amax);
  ops.label(layer_, kNormLabel);
  const Tensor norm_amax = attn_out_.wanted_amax(LinearTensor::kDy);
  norm2_.backward(ops, d_own, g.norm2, g.norm2_bias, d_norm_own, Accumulate::kYes, accumulate,
                  norm_amax);

  attn_out_.backward(ops, s.d_attention, g.attn_out, g.attn_out_bias, d_stream, accumulate,
                     norm_amax);
  ops.label(layer_, kAttentionLabel);
  ops.attention_backward(s.d_qkv, s.d_attention, a_.qkv, a_.attention, a_.lse, shape);
  if (rope_table_) ops.rope(s.d_qkv, rope_table_, shape, 0, Direction::kBackward);
  if (q_norm_) {
    ops.qk_norm_backward(s.d_qkv, g.q_norm, g.k_norm, a_.qkv_raw, q_norm_, k_norm_, a_.qk_rstd,
                         shape, accumulate);
  }
  qkv_.backward(ops, s.d_norm, g.qkv, g.qkv_bias, s.d_qkv, accumulate);
  ops.label(layer_, kNormLabel);
  norm1_.backward(ops, d_own, g.norm1, g.norm1_bias, d_norm_own, Accumulate::kYes, accumulate,
                  amax);
}

Stream Block::forward_cached(ops::Ops& ops, const Stream& in, const AttentionShape& shape,
                             const KvCache& cache, int64_t first_position) {
  const int64_t N = shape.n_tokens();
  const Tensor qkv = project_qkv(ops, in, shape, first_position);
  const Tensor attention = a_.attention.row_range(0, N);
  const Tensor delta = delta_.row_range(0, N);
  ops.attention_cached(attention, cache.k, cache.v, qkv, shape, first_position);
  attn_out_.forward(ops, delta, attention);
  return forward_mlp(ops, {in.delta ? a_.sum1.row_range(0, N) : in.x, delta}, N);
}

}  // namespace qstep::trainer
