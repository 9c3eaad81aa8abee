// The decoder as data: every dimension and every choice of layer, the presets, and what follows
// from them by arithmetic (parameters, flops).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/ops.h"

namespace qstep::trainer {

enum class NormKind : uint8_t { kRms, kLayer };
enum class PositionKind : uint8_t { kRope, kLearned };

struct ModelConfig {
  std::string preset;      // where the dimensions came from; empty: all by name
  int64_t vocab_size = 0;  // V
  int64_t n_layers = 0;    // L
  int64_t width = 0;       // C
  int64_t n_heads = 0;     // H
  int64_t n_kv_heads = 0;  // K, divides H
  int64_t head_dim = 0;    // D
  int64_t ffn_width = 0;   // F
  int64_t max_seq_len = 0;
  NormKind norm = NormKind::kRms;
  PositionKind position = PositionKind::kRope;
  ops::Activation activation = ops::Activation::kSwiglu;
  bool bias = false;       // linear layers carry a bias
  bool qk_norm = false;    // RMSNorm on every query and key head
  bool tied_head = false;  // the head is the token embedding
  double norm_eps = 1e-5;
  double rope_theta = 10000.0;
  double init_std = 0.02;  // residual projections: / sqrt(2 L)  (GPT-2, section 2.3)

  // Rows of the embedding in memory: V rounded up to a multiple of 128, the rest zero and never
  // read.
  int64_t padded_vocab() const { return (vocab_size + 127) / 128 * 128; }
  int64_t qkv_width() const { return (n_heads + 2 * n_kv_heads) * head_dim; }
  int64_t q_width() const { return n_heads * head_dim; }
  // Rows of the first MLP matrix: gate and up are one matrix in SwiGLU.
  int64_t up_width() const {
    return activation == ops::Activation::kSwiglu ? 2 * ffn_width : ffn_width;
  }
};

// What a rank of a tensor-parallel group of `tensor` computes of the blocks: its share of the heads
// and of the MLP's features. The vocabulary stays that of the model; so does all that has width C.
ModelConfig tensor_share(const ModelConfig& model, int64_t tensor);

// Attention flops are counted over the causal triangle, or over the whole T x T square.
enum class AttentionCount : uint8_t { kCausal, kFull };

// Fills in the dimensions left 0: K = H, D = C / H (stays 0 where H does not divide C), F = 4 C, or
// 8 C / 3 rounded up to a multiple of 64 for SwiGLU (Shazeer 2020: the same parameters as 4 C
// without the gate). max_seq_len 0 becomes seq_len; the vocabulary is the corpus's to give.
void derive_dimensions(ModelConfig& model, int64_t seq_len);

// The vocabulary that lists and plans assume where a preset leaves it to the corpus.
inline constexpr int64_t kAssumedVocab = 4096;

// Parameters without vocabulary padding; the tied head counts once.
int64_t n_parameters(const ModelConfig& model);

// Model flops of forward and backward per token, a multiply-add being two:
// 6 L (C H D + 2 C K D + H D C + g C F) + 6 V C + attention, g = 3 gated, 2 otherwise;
// attention 6 L H D (T + 1) causal, 12 L H D T full. Norms, softmax and the optimizer are not
// counted.
double flops_per_token(const ModelConfig& model, int64_t seq_len, AttentionCount count);

// Of d[m,n] = a[m,k] b[n,k]^T, a multiply-add being two.
constexpr double gemm_flops(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// A model of GPT-2's family: learned positions, LayerNorm with bias, biases everywhere, GELU, tied
// head (Radford et al. 2019, table 2).
struct Gpt2Dims {
  int64_t n_layers, width, n_heads, vocab_size, max_seq_len;
};
ModelConfig gpt2_model(const Gpt2Dims& dims);

struct Preset {
  std::string_view name;
  std::string_view what;  // one line for lists
  ModelConfig model;
};
const std::vector<Preset>& presets();

// The preset of that name; an Error (config) that lists the nearest names otherwise.
const ModelConfig& preset_model(std::string_view name);

// Every contradiction in the dimensions, one text each, which begins with the name of an option:
// "model.n_kv_heads = 5 does not divide model.n_heads = 8: write ...". vocab_size is not looked at.
std::vector<std::string> model_problems(const ModelConfig& model, int64_t seq_len);

}  // namespace qstep::trainer
