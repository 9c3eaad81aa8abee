#include "trainer/model/model.h"

#include "ops/rope.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::Dtype;
using ops::Tensor;

ModelActivations lay_out_activations(ops::Arena& arena, const ModelConfig& model, int64_t batch,
                                     int64_t seq_len, Dtype dtype, Purpose purpose,
                                     int64_t tensor) {
  const ModelConfig share = tensor_share(model, tensor);
  const int64_t N = batch * seq_len, C = model.width;
  const auto take = [&](int64_t cols) { return arena.take("activations", dtype, N, cols); };
  ModelActivations a;
  a.tokens = arena.take("batch", Dtype::kI32, 1, N);
  a.targets = arena.take("batch", Dtype::kI32, 1, N);
  a.losses = arena.take("batch", Dtype::kF32, 1, N);
  if (model.position == PositionKind::kRope) {
    a.rope_table = arena.take("rope table", Dtype::kF32, seq_len, model.head_dim);
  }
  a.embedding = take(C);
  a.delta = take(C);
  const bool training = purpose == Purpose::kTraining;
  for (int64_t l = 0; l < model.n_layers; ++l) {
    // Blocks that alternate between two sets read the stream of the one before from the other set.
    const auto reused = static_cast<size_t>(l % 2);
    a.blocks.push_back(training || l < 2
                           ? lay_out_block(arena, share, batch, seq_len, dtype, tensor)
                           : a.blocks[reused]);
  }
  a.final_sum = arena.take("activations", dtype, N / tensor, C);
  a.final_norm = take(C);
  a.final_stats = arena.take("activations", Dtype::kF32, 2, N / tensor);
  a.head = lay_out_head(arena, model, N, dtype, tensor);
  if (training) {
    a.d_stream = arena.take("activation gradients", dtype, N, C);
    a.scratch = lay_out_block_scratch(arena, share, N, dtype);
  }
  return a;
}

Model::Model(ops::Ops& ops, const ModelConfig& config, const ModelWeights<Tensor>& weights,
             const ModelActivations& activations, int64_t batch, int64_t seq_len,
             const ModelPrecision* precision, TensorParallel* group)
    : config_(config),
      group_(group != nullptr ? *group : alone_),
      weights_(weights),
      a_(activations),
      shape_{.batch = batch,
             .seq_len = seq_len,
             .n_heads = config.n_heads / group_.size(),
             .n_kv_heads = config.n_kv_heads / group_.size(),
             .head_dim = config.head_dim},
      final_norm_(config.norm, static_cast<float>(config.norm_eps), weights.final_norm,
                  weights.final_norm_bias, activations.final_stats),
      head_(config, config.tied_head ? weights.wte : weights.head, activations.head, group_) {
  if (a_.rope_table) {
    std::vector<float> table(static_cast<size_t>(a_.rope_table.size()));
    ops::fill_rope_table(table, a_.rope_table.rows, config.head_dim, config.rope_theta);
    ops.upload(a_.rope_table, table.data());
  }
  for (size_t l = 0; l < weights.blocks.size(); ++l) {
    std::array<LinearOperands, kLinearsPerBlock> operands;
    if (precision != nullptr) {
      for (size_t i = 0; i < operands.size(); ++i) {
        operands[i] = precision->linear(static_cast<int64_t>(l), static_cast<LinearKind>(i));
      }
    }
    blocks_.emplace_back(static_cast<int64_t>(l), config, weights.blocks[l], a_.blocks[l], a_.delta,
                         a_.rope_table, std::move(operands), group_);
  }
}

Stream Model::forward_blocks(ops::Ops& ops) {
  want_weights(kEmbeddingBucket);
  ops.label(-1, kEmbedLabel);
  // One rank has the row of a token, and the first one the positions: their sum is exact but for
  // the addition of these two.
  const Tensor wpe = group_.rank() == 0 ? weights_.wpe : Tensor();
  ops.embedding_forward(a_.embedding, a_.tokens, weights_.wte, first_token(), wpe, shape_.seq_len,
                        0);
  group_.sum_rows(a_.embedding);
  Stream stream{group_.own_rows(a_.embedding), {}};
  for (size_t l = 0; l < blocks_.size(); ++l) {
    want_weights(block_bucket(static_cast<int64_t>(l)));
    stream = blocks_[l].forward(ops, stream, shape_);
  }
  want_weights(head_bucket(config_));
  ops.label(-1, kNormLabel);
  final_norm_.forward(ops, a_.final_sum, group_.own_rows(a_.final_norm), stream);
  return stream;
}

void Model::forward(ops::Ops& ops) {
  forward_blocks(ops);
  head_.forward(ops, a_.losses, a_.final_norm, a_.targets);
}

void Model::forward_backward(ops::Ops& ops, const ModelWeights<Tensor>& g, float scale,
                             Accumulate accumulate, Timeline& timer) {
  timer.enter(Phase::kForward);
  forward_blocks(ops);

  // The tied head writes the embedding's gradient first; the embedding adds to it at the end.
  const Tensor& d_head = config_.tied_head ? g.wte : g.head;
  const Tensor& d_final = a_.scratch.d_norm;
  head_.forward_backward(ops, a_.losses, d_final, d_head, a_.final_norm, a_.targets, scale,
                         accumulate, timer);

  timer.enter(Phase::kBackward);
  ops.label(-1, kNormLabel);
  // Of the gradient that the block below `l` reads; the embedding's is not quantized.
  const auto amax_below = [&](size_t l) { return l > 0 ? blocks_[l - 1].wanted_amax() : Tensor(); };
  final_norm_.backward(ops, group_.own_rows(a_.d_stream), g.final_norm, g.final_norm_bias,
                       group_.own_rows(d_final), Accumulate::kNo, accumulate,
                       amax_below(blocks_.size()));
  gradient_complete(head_bucket(config_));
  for (size_t l = blocks_.size(); l-- > 0;) {
    blocks_[l].backward(ops, a_.d_stream, g.blocks[l], a_.scratch, shape_, accumulate,
                        amax_below(l));
    gradient_complete(block_bucket(static_cast<int64_t>(l)));
  }
  ops.label(-1, kEmbedLabel);
  if (!config_.tied_head && accumulate == Accumulate::kNo) ops.zero(g.wte);
  group_.gather_rows(a_.d_stream);
  const bool has_positions = group_.rank() == 0;
  if (!has_positions && g.wpe && accumulate == Accumulate::kNo) ops.zero(g.wpe);
  ops.embedding_backward(g.wte, first_token(), has_positions ? g.wpe : Tensor(), a_.d_stream,
                         a_.tokens, shape_.seq_len, accumulate);
  gradient_complete(kEmbeddingBucket);
}

Tensor Model::forward_cached(ops::Ops& ops, int64_t n, std::span<const KvCache> caches,
                             int64_t first_position) {
  ops::AttentionShape shape = shape_;
  shape.batch = 1;
  shape.seq_len = n;
  const Tensor x = a_.embedding.row_range(0, n);
  ops.label(-1, kEmbedLabel);
  ops.embedding_forward(x, a_.tokens.col_range(0, n), weights_.wte, 0, weights_.wpe, n,
                        first_position);
  Stream stream{x, {}};
  for (size_t l = 0; l < blocks_.size(); ++l) {
    stream = blocks_[l].forward_cached(ops, stream, shape, caches[l], first_position);
  }
  const Tensor norm = a_.final_norm.row_range(0, n);
  ops.label(-1, kNormLabel);
  final_norm_.forward(ops, a_.final_sum.row_range(0, n), norm, stream);
  return head_.logits(ops, norm.row_range(n - 1, 1));
}

}  // namespace qstep::trainer
