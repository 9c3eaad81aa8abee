#include "trainer/config/model_config.h"

#include <fmt/format.h>

#include <utility>

#include "ops/attention/attention.h"
#include "trainer/base/nearest.h"

namespace qstep::trainer {

namespace {

// Matrices of the MLP: gate, up and down, or up and down.
int64_t n_mlp_matrices(const ModelConfig& m) {
  return m.activation == ops::Activation::kSwiglu ? 3 : 2;
}

int64_t block_matrix_parameters(const ModelConfig& m) {
  return m.width * m.qkv_width() + m.q_width() * m.width +
         n_mlp_matrices(m) * m.width * m.ffn_width;
}

// The divisor of n that is closest to `wanted`.
int64_t nearest_divisor(int64_t n, int64_t wanted) {
  for (int64_t distance = 0; distance < n; ++distance) {
    for (const int64_t candidate : {wanted - distance, wanted + distance}) {
      if (candidate >= 1 && candidate <= n && n % candidate == 0) return candidate;
    }
  }
  return 1;
}

}  // namespace

void derive_dimensions(ModelConfig& m, int64_t seq_len) {
  if (m.n_kv_heads == 0) m.n_kv_heads = m.n_heads;
  if (m.head_dim == 0 && m.n_heads > 0 && m.width % m.n_heads == 0)
    m.head_dim = m.width / m.n_heads;
  if (m.ffn_width == 0) {
    m.ffn_width =
        m.activation == ops::Activation::kSwiglu ? (8 * m.width + 191) / 192 * 64 : 4 * m.width;
  }
  if (m.max_seq_len == 0) m.max_seq_len = seq_len;
}

int64_t n_parameters(const ModelConfig& m) {
  const int64_t norm = m.norm == NormKind::kLayer ? 2 * m.width : m.width;
  int64_t block = block_matrix_parameters(m) + 2 * norm;
  if (m.bias) block += m.qkv_width() + m.width + m.up_width() + m.width;
  if (m.qk_norm) block += 2 * m.head_dim;
  const int64_t embeddings = m.vocab_size * m.width * (m.tied_head ? 1 : 2);
  const int64_t positions = m.position == PositionKind::kLearned ? m.max_seq_len * m.width : 0;
  return embeddings + positions + m.n_layers * block + norm;
}

ModelConfig tensor_share(const ModelConfig& model, int64_t tensor) {
  ModelConfig share = model;
  share.n_heads /= tensor;
  share.n_kv_heads /= tensor;
  share.ffn_width /= tensor;
  return share;
}

double flops_per_token(const ModelConfig& m, int64_t seq_len, AttentionCount count) {
  const double layers = static_cast<double>(m.n_layers);
  const double q_width = static_cast<double>(m.q_width());
  const double matrices = layers * static_cast<double>(block_matrix_parameters(m)) +
                          static_cast<double>(m.vocab_size) * static_cast<double>(m.width);
  const double attention = count == AttentionCount::kFull
                               ? 12 * layers * q_width * static_cast<double>(seq_len)
                               : 6 * layers * q_width * static_cast<double>(seq_len + 1);
  return 6 * matrices + attention;
}

std::vector<std::string> model_problems(const ModelConfig& m, int64_t seq_len) {
  std::vector<std::string> problems;
  const auto problem = [&]<class... Args>(fmt::format_string<Args...> text, Args&&... args) {
    problems.push_back(fmt::format(text, std::forward<Args>(args)...));
  };
  const auto at_least_one = [&](std::string_view name, int64_t value, std::string_view example) {
    if (value < 1) problem("{} = {} must be at least 1: {}", name, value, example);
    return value >= 1;
  };
  const bool has_layers = at_least_one("model.n_layers", m.n_layers,
                                       "write model.n_layers = 8, or name a model.preset");
  const bool has_width =
      at_least_one("model.width", m.width, "write model.width = 384, or name a model.preset");
  const bool has_heads =
      at_least_one("model.n_heads", m.n_heads, "write model.n_heads = 6, or name a model.preset");
  if (!has_layers || !has_width || !has_heads) return problems;

  // 0 means derived; a head size of 0 is left only where width is not a multiple of n_heads.
  if (m.head_dim == 0) {
    problem(
        "model.width = {} is not a multiple of model.n_heads = {}: write model.width = {}, or give "
        "model.head_dim",
        m.width, m.n_heads, multiples_around(m.width, m.n_heads));
  }
  if (m.n_kv_heads < 1 || m.n_kv_heads > m.n_heads || m.n_heads % m.n_kv_heads != 0) {
    problem("model.n_kv_heads = {} does not divide model.n_heads = {}: write model.n_kv_heads = {}",
            m.n_kv_heads, m.n_heads, nearest_divisor(m.n_heads, m.n_kv_heads));
  }
  if (m.position == PositionKind::kRope && m.head_dim % 2 != 0) {
    problem(
        "model.head_dim = {} is odd, and rotary positions turn pairs: write model.head_dim = {}, "
        "or "
        "model.position = \"learned\"",
        m.head_dim, m.head_dim + 1);
  }
  if (m.head_dim > ops::kMaxHeadDim) {
    problem("model.head_dim = {} is more than attention can do: write model.head_dim = {} or less",
            m.head_dim, ops::kMaxHeadDim);
  }
  at_least_one("model.ffn_width", m.ffn_width, "write 0 to have it derived from model.width");
  if (at_least_one("model.max_seq_len", m.max_seq_len, "write 0 to take train.seq_len") &&
      seq_len > m.max_seq_len) {
    problem(
        "model.max_seq_len = {} is less than train.seq_len = {}: write train.seq_len = {}, or "
        "model.max_seq_len = {}",
        m.max_seq_len, seq_len, m.max_seq_len, seq_len);
  }
  return problems;
}

}  // namespace qstep::trainer
