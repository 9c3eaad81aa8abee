// The one list of weights. Initialisation, counting, weight decay, gradients, optimizer state,
// checkpoints and import all walk it.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer {

enum class Init : uint8_t { kNormal, kZero, kOne };
enum class Decay : uint8_t { kNo, kYes };
// How tensor parallelism cuts a weight: not at all, or along its rows (the features that a
// column-parallel layer makes) or its columns (those that a row-parallel layer sums over).
enum class TensorSplit : uint8_t { kNone, kRows, kCols };

struct WeightSpec {
  std::string name;  // "blocks.3.qkv.weight"
  int64_t rows = 0;
  int64_t cols = 0;
  Init init = Init::kZero;
  double std = 0;  // of kNormal
  Decay decay = Decay::kNo;
  int64_t used_rows = 0;  // rows behind it are padding: zero, with zero gradients
  // Weights that are used, and whose gradients are complete, at about the same time.
  int64_t bucket = 0;
  // The cut dimension in sections, each of which is shared out evenly: q, k and v; gate and up.
  // 0 behind the last one.
  TensorSplit split = TensorSplit::kNone;
  std::array<int64_t, 3> sections{};
};

// Of the buckets: 0 is the embeddings, l + 1 block l, the last one what follows the blocks.
constexpr int64_t kEmbeddingBucket = 0;
constexpr int64_t block_bucket(int64_t block) { return block + 1; }
constexpr int64_t head_bucket(const ModelConfig& model) { return model.n_layers + 1; }
constexpr int64_t n_buckets(const ModelConfig& model) { return head_bucket(model) + 1; }

// One value (a tensor, an offset, ...) per weight; members that the model lacks stay empty.
template <class T>
struct BlockWeights {
  T norm1, norm1_bias, qkv, qkv_bias, q_norm, k_norm, attn_out, attn_out_bias;
  T norm2, norm2_bias, up, up_bias, down, down_bias;
};

template <class T>
struct ModelWeights {
  T wte, wpe;
  std::vector<BlockWeights<T>> blocks;
  T final_norm, final_norm_bias;
  T head;  // empty when tied: the head is wte
};

// f(const WeightSpec&, T&) for every weight of the model, in the order of the forward pass.
// Linear weights are [out, in]. Matrices are N(0, init_std^2), those that write into the residual
// stream N(0, init_std^2 / (2 L)) (Radford et al. 2019, section 2.3); norms one, biases zero.
template <class T, class F>
void for_each_weight(const ModelConfig& m, ModelWeights<T>& w, F&& f) {
  w.blocks.resize(static_cast<size_t>(m.n_layers));
  const int64_t C = m.width, F_ = m.ffn_width;
  const double std = m.init_std;
  const double residual_std = std / std::sqrt(2.0 * static_cast<double>(m.n_layers));

  int64_t bucket = kEmbeddingBucket;
  using Sections = std::array<int64_t, 3>;
  const auto embedding = [&](const std::string& name, T& t, int64_t rows, int64_t used,
                             TensorSplit split) {
    f(WeightSpec{name, rows, C, Init::kNormal, std, Decay::kYes, used, bucket, split,
                 split == TensorSplit::kNone ? Sections{} : Sections{rows}},
      t);
  };
  const auto linear = [&](const std::string& name, T& weight, T& bias, int64_t out, int64_t in,
                          double s, TensorSplit split, const Sections& sections) {
    f(WeightSpec{name + ".weight", out, in, Init::kNormal, s, Decay::kYes, out, bucket, split,
                 sections},
      weight);
    if (!m.bias) return;
    WeightSpec b{name + ".bias", 1, out, Init::kZero, 0, Decay::kNo, 1, bucket};
    if (split == TensorSplit::kRows) {
      b.split = TensorSplit::kCols;
      b.sections = sections;
    }
    f(b, bias);
  };
  const auto norm = [&](const std::string& name, T& weight, T& bias) {
    f(WeightSpec{name + ".weight", 1, C, Init::kOne, 0, Decay::kNo, 1, bucket}, weight);
    if (m.norm == NormKind::kLayer) {
      f(WeightSpec{name + ".bias", 1, C, Init::kZero, 0, Decay::kNo, 1, bucket}, bias);
    }
  };

  embedding("wte.weight", w.wte, m.padded_vocab(), m.vocab_size, TensorSplit::kRows);
  if (m.position == PositionKind::kLearned) {
    embedding("wpe.weight", w.wpe, m.max_seq_len, m.max_seq_len, TensorSplit::kNone);
  }
  for (int64_t l = 0; l < m.n_layers; ++l) {
    BlockWeights<T>& b = w.blocks[static_cast<size_t>(l)];
    const std::string prefix = "blocks." + std::to_string(l) + ".";
    bucket = block_bucket(l);
    norm(prefix + "norm1", b.norm1, b.norm1_bias);
    const int64_t kv_width = m.n_kv_heads * m.head_dim;
    linear(prefix + "qkv", b.qkv, b.qkv_bias, m.qkv_width(), C, std, TensorSplit::kRows,
           {m.q_width(), kv_width, kv_width});
    if (m.qk_norm) {
      f(WeightSpec{prefix + "q_norm.weight", 1, m.head_dim, Init::kOne, 0, Decay::kNo, 1, bucket},
        b.q_norm);
      f(WeightSpec{prefix + "k_norm.weight", 1, m.head_dim, Init::kOne, 0, Decay::kNo, 1, bucket},
        b.k_norm);
    }
    linear(prefix + "attn_out", b.attn_out, b.attn_out_bias, C, m.q_width(), residual_std,
           TensorSplit::kCols, {m.q_width()});
    norm(prefix + "norm2", b.norm2, b.norm2_bias);
    linear(prefix + "up", b.up, b.up_bias, m.up_width(), C, std, TensorSplit::kRows,
           {F_, m.up_width() - F_});
    linear(prefix + "down", b.down, b.down_bias, C, F_, residual_std, TensorSplit::kCols, {F_});
  }
  bucket = head_bucket(m);
  norm("final_norm", w.final_norm, w.final_norm_bias);
  if (!m.tied_head)
    embedding("head.weight", w.head, m.padded_vocab(), m.vocab_size, TensorSplit::kRows);
}

// The list as data.
std::vector<WeightSpec> weight_list(const ModelConfig& model);

// Fills `weight` (FP32, the spec's shape) as the spec says: a pure function of seed, position in
// the list and element, so that the split over ranks cannot change it. Padding rows become zero.
void init_weight(const ops::Tensor& weight, const WeightSpec& spec, uint64_t seed,
                 uint32_t list_index);

}  // namespace qstep::trainer
