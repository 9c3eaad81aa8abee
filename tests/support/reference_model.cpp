#include "tests/support/reference_model.h"

#include <algorithm>
#include <cmath>

namespace qstep::test {

using ops::Activation;
using reference::add_to;
using trainer::ModelConfig;
using trainer::NormKind;
using trainer::PositionKind;

namespace {

struct BlockState {
  Matrix x1, norm1, qkv_raw, qkv, probs, attention, x2, norm2, up, act;
};

class Pass {
 public:
  Pass(const ModelConfig& model, const Weights& weights, const Batch& batch, Rounding rounding)
      : m_(model), w_(weights), batch_(batch), r_(rounding), N_(batch.batch * batch.seq_len) {}

  ReferenceResult forward();
  void backward(ReferenceResult& result);

 private:
  const Matrix& w(const std::string& name) const { return w_.at(name); }
  const Matrix* w_or_null(const std::string& name) const {
    const auto found = w_.find(name);
    return found == w_.end() ? nullptr : &found->second;
  }
  Matrix* g_or_null(Weights& grads, const std::string& name) const {
    const auto found = grads.find(name);
    return found == grads.end() ? nullptr : &found->second;
  }

  Matrix linear_layer(const std::string& name, const Matrix& x) {
    return reference::linear(x, w(name + ".weight"), w_or_null(name + ".bias"), r_);
  }
  Matrix linear_layer_backward(const std::string& name, const Matrix& dy, const Matrix& x,
                               Weights& g) {
    return reference::linear_backward(g.at(name + ".weight"), g_or_null(g, name + ".bias"), dy, x,
                                      w(name + ".weight"), r_);
  }
  Matrix norm_layer(const std::string& name, const Matrix& x) {
    Matrix y(x.rows, x.cols);
    for (int64_t n = 0; n < x.rows; ++n) {
      reference::norm_row(&y.at(n, 0), x.v.data() + n * x.cols, x.cols, m_.norm, m_.norm_eps,
                          w(name + ".weight"), w_or_null(name + ".bias"), r_);
    }
    return y;
  }
  void norm_layer_backward(const std::string& name, Matrix& dx, const Matrix& dy, const Matrix& x,
                           Weights& g) {
    for (int64_t n = 0; n < x.rows; ++n) {
      reference::norm_row_backward(&dx.at(n, 0), dy.v.data() + n * dy.cols, x.v.data() + n * x.cols,
                                   x.cols, m_.norm, m_.norm_eps, w(name + ".weight"),
                                   g.at(name + ".weight"), g_or_null(g, name + ".bias"), r_);
    }
  }
  // Every query and key head of `in` through its norm; v is copied.
  Matrix norm_heads(const std::string& prefix, const Matrix& in);
  Matrix norm_heads_backward(const std::string& prefix, const Matrix& dy, const Matrix& x,
                             Weights& g);
  const std::string& head_norm(const std::string& q, const std::string& k, int64_t head) const {
    return head < m_.n_heads ? q : k;
  }
  void add_stored(Matrix& x, const Matrix& y) {
    for (size_t i = 0; i < x.v.size(); ++i) x.v[i] = r_.stored(x.v[i] + y.v[i]);
  }
  std::string head_name() const { return m_.tied_head ? "wte.weight" : "head.weight"; }

  const ModelConfig& m_;
  const Weights& w_;
  const Batch& batch_;
  Rounding r_;
  int64_t N_;
  std::vector<BlockState> blocks_;
  Matrix last_, final_norm_;
};

Matrix Pass::norm_heads(const std::string& prefix, const Matrix& in) {
  const std::string q = prefix + "q_norm.weight", k = prefix + "k_norm.weight";
  Matrix out = in;
  for (int64_t n = 0; n < in.rows; ++n) {
    for (int64_t h = 0; h < m_.n_heads + m_.n_kv_heads; ++h) {
      reference::norm_row(&out.at(n, h * m_.head_dim), in.v.data() + n * in.cols + h * m_.head_dim,
                          m_.head_dim, NormKind::kRms, m_.norm_eps, w(head_norm(q, k, h)), nullptr,
                          r_);
    }
  }
  return out;
}

Matrix Pass::norm_heads_backward(const std::string& prefix, const Matrix& dy, const Matrix& x,
                                 Weights& g) {
  const std::string q = prefix + "q_norm.weight", k = prefix + "k_norm.weight";
  Matrix dx = dy;
  for (int64_t n = 0; n < x.rows; ++n) {
    for (int64_t h = 0; h < m_.n_heads + m_.n_kv_heads; ++h) {
      const std::string& name = head_norm(q, k, h);
      double* const out = &dx.at(n, h * m_.head_dim);
      std::fill(out, out + m_.head_dim, 0.0);
      reference::norm_row_backward(out, dy.v.data() + n * dy.cols + h * m_.head_dim,
                                   x.v.data() + n * x.cols + h * m_.head_dim, m_.head_dim,
                                   NormKind::kRms, m_.norm_eps, w(name), g.at(name), nullptr, r_);
    }
  }
  return dx;
}

ReferenceResult Pass::forward() {
  const int64_t C = m_.width, T = batch_.seq_len, V = m_.vocab_size;
  Matrix x(N_, C);
  for (int64_t n = 0; n < N_; ++n) {
    for (int64_t c = 0; c < C; ++c) {
      double value = w("wte.weight").at(batch_.tokens[static_cast<size_t>(n)], c);
      if (m_.position == PositionKind::kLearned) value += w("wpe.weight").at(n % T, c);
      x.at(n, c) = r_.stored(value);
    }
  }
  for (int64_t l = 0; l < m_.n_layers; ++l) {
    const std::string prefix = "blocks." + std::to_string(l) + ".";
    BlockState s;
    s.x1 = x;
    s.norm1 = norm_layer(prefix + "norm1", x);
    s.qkv_raw = linear_layer(prefix + "qkv", s.norm1);
    s.qkv = m_.qk_norm ? norm_heads(prefix, s.qkv_raw) : s.qkv_raw;
    if (m_.position == PositionKind::kRope) reference::rotate(s.qkv, m_, T, 1.0, r_);
    reference::attend(s.qkv, m_, batch_.batch, T, s.probs, s.attention, r_);
    add_stored(x, linear_layer(prefix + "attn_out", s.attention));
    s.x2 = x;
    s.norm2 = norm_layer(prefix + "norm2", x);
    s.up = linear_layer(prefix + "up", s.norm2);
    s.act = reference::activate(s.up, m_.activation, m_.ffn_width, r_);
    add_stored(x, linear_layer(prefix + "down", s.act));
    blocks_.push_back(std::move(s));
  }
  last_ = x;
  final_norm_ = norm_layer("final_norm", x);
  ReferenceResult result;
  result.logits = reference::linear(final_norm_, w(head_name()), nullptr, r_);
  for (int64_t n = 0; n < N_; ++n) {
    double top = result.logits.at(n, 0), total = 0;
    for (int64_t v = 0; v < V; ++v) top = std::max(top, result.logits.at(n, v));
    for (int64_t v = 0; v < V; ++v) total += std::exp(result.logits.at(n, v) - top);
    const double loss =
        std::log(total) + top - result.logits.at(n, batch_.targets[static_cast<size_t>(n)]);
    result.loss += r_.stored_fp32(loss) / static_cast<double>(N_);
  }
  return result;
}

void Pass::backward(ReferenceResult& result) {
  const int64_t V = m_.vocab_size;
  Weights& g = result.grads = zero_weights(m_);
  Matrix d_logits(N_, V);
  for (int64_t n = 0; n < N_; ++n) {
    double top = result.logits.at(n, 0), total = 0;
    for (int64_t v = 0; v < V; ++v) top = std::max(top, result.logits.at(n, v));
    for (int64_t v = 0; v < V; ++v) total += std::exp(result.logits.at(n, v) - top);
    for (int64_t v = 0; v < V; ++v) {
      const double p = std::exp(result.logits.at(n, v) - top) / total;
      const double hit = v == batch_.targets[static_cast<size_t>(n)] ? 1.0 : 0.0;
      d_logits.at(n, v) = r_.stored((p - hit) / static_cast<double>(N_));
    }
  }
  const Matrix d_final = reference::linear_backward(g.at(head_name()), nullptr, d_logits,
                                                    final_norm_, w(head_name()), r_);
  Matrix dx(N_, m_.width);
  norm_layer_backward("final_norm", dx, d_final, last_, g);
  for (int64_t l = m_.n_layers; l-- > 0;) {
    const std::string prefix = "blocks." + std::to_string(l) + ".";
    const BlockState& s = blocks_[static_cast<size_t>(l)];
    const Matrix d_act = linear_layer_backward(prefix + "down", dx, s.act, g);
    const Matrix d_up = reference::activate_backward(d_act, s.up, m_.activation, r_);
    const Matrix d_norm2 = linear_layer_backward(prefix + "up", d_up, s.norm2, g);
    norm_layer_backward(prefix + "norm2", dx, d_norm2, s.x2, g);
    const Matrix d_attention = linear_layer_backward(prefix + "attn_out", dx, s.attention, g);
    Matrix d_qkv = reference::attend_backward(d_attention, s.qkv, s.probs, m_, batch_.batch,
                                              batch_.seq_len, r_);
    if (m_.position == PositionKind::kRope) reference::rotate(d_qkv, m_, batch_.seq_len, -1.0, r_);
    if (m_.qk_norm) d_qkv = norm_heads_backward(prefix, d_qkv, s.qkv_raw, g);
    const Matrix d_norm1 = linear_layer_backward(prefix + "qkv", d_qkv, s.norm1, g);
    norm_layer_backward(prefix + "norm1", dx, d_norm1, s.x1, g);
  }
  for (int64_t n = 0; n < N_; ++n) {
    for (int64_t c = 0; c < m_.width; ++c) {
      g.at("wte.weight").at(batch_.tokens[static_cast<size_t>(n)], c) += dx.at(n, c);
      if (m_.position == PositionKind::kLearned) {
        g.at("wpe.weight").at(n % batch_.seq_len, c) += dx.at(n, c);
      }
    }
  }
}

}  // namespace

Weights zero_weights(const ModelConfig& m) {
  Weights w;
  const int64_t C = m.width, gates = m.activation == Activation::kSwiglu ? 2 : 1;
  const int64_t qkv = (m.n_heads + 2 * m.n_kv_heads) * m.head_dim;
  const auto linear_weight = [&](const std::string& name, int64_t out, int64_t in) {
    w[name + ".weight"] = Matrix(out, in);
    if (m.bias) w[name + ".bias"] = Matrix(1, out);
  };
  const auto norm = [&](const std::string& name) {
    w[name + ".weight"] = Matrix(1, C);
    if (m.norm == NormKind::kLayer) w[name + ".bias"] = Matrix(1, C);
  };
  w["wte.weight"] = Matrix(m.vocab_size, C);
  if (m.position == PositionKind::kLearned) w["wpe.weight"] = Matrix(m.max_seq_len, C);
  for (int64_t l = 0; l < m.n_layers; ++l) {
    const std::string prefix = "blocks." + std::to_string(l) + ".";
    norm(prefix + "norm1");
    linear_weight(prefix + "qkv", qkv, C);
    if (m.qk_norm) {
      w[prefix + "q_norm.weight"] = Matrix(1, m.head_dim);
      w[prefix + "k_norm.weight"] = Matrix(1, m.head_dim);
    }
    linear_weight(prefix + "attn_out", C, m.n_heads * m.head_dim);
    norm(prefix + "norm2");
    linear_weight(prefix + "up", gates * m.ffn_width, C);
    linear_weight(prefix + "down", C, m.ffn_width);
  }
  norm("final_norm");
  if (!m.tied_head) w["head.weight"] = Matrix(m.vocab_size, C);
  return w;
}

ReferenceResult reference_forward(const ModelConfig& model, const Weights& weights,
                                  const Batch& batch, Rounding rounding) {
  return Pass(model, weights, batch, rounding).forward();
}

ReferenceResult reference_forward_backward(const ModelConfig& model, const Weights& weights,
                                           const Batch& batch, Rounding rounding) {
  Pass pass(model, weights, batch, rounding);
  ReferenceResult result = pass.forward();
  pass.backward(result);
  return result;
}

void ReferenceAdamW::update(Weights& weights, const Weights& grads, double lr) {
  ++t;
  const double correction1 = 1 - std::pow(beta1, static_cast<double>(t));
  const double correction2 = 1 - std::pow(beta2, static_cast<double>(t));
  for (auto& [name, weight] : weights) {
    Matrix& m1 = m.try_emplace(name, weight.rows, weight.cols).first->second;
    Matrix& m2 = v.try_emplace(name, weight.rows, weight.cols).first->second;
    const double decay = weight.rows > 1 ? weight_decay : 0;  // vectors are one row
    for (size_t i = 0; i < weight.v.size(); ++i) {
      const double g = grads.at(name).v[i];
      m1.v[i] = beta1 * m1.v[i] + (1 - beta1) * g;
      m2.v[i] = beta2 * m2.v[i] + (1 - beta2) * g * g;
      const double step = m1.v[i] / correction1 / (std::sqrt(m2.v[i] / correction2) + eps);
      weight.v[i] -= lr * (step + decay * weight.v[i]);
    }
  }
}

}  // namespace qstep::test
