#include "tests/support/reference_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace qstep::test {

using ops::Activation;
using trainer::ModelConfig;
using trainer::NormKind;
using trainer::PositionKind;

double Rounding::next() {
  state_ = state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
  return static_cast<double>(static_cast<int64_t>(state_)) * 0x1p-63;
}

double Rounding::summed(double sum, double squares, int64_t terms) {
  if (add_ == 0) return sum;
  return sum + add_ * next() * std::sqrt(static_cast<double>(terms) * squares);
}

namespace {

// ---- linear layers --------------------------------------------------------------------

enum class Kept { kActivation, kGradient };  // activations' type, or FP32

// out[i,j] = sum_k a(i,k) b(j,k)
template <class A, class B>
Matrix product(int64_t rows, int64_t cols, int64_t terms, A&& a, B&& b, Rounding& r, Kept kept) {
  Matrix out(rows, cols);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      double sum = 0, squares = 0;
      for (int64_t k = 0; k < terms; ++k) {
        const double term = a(i, k) * b(j, k);
        sum += term;
        squares += term * term;
      }
      const double rounded = r.summed(sum, squares, terms);
      out.at(i, j) = kept == Kept::kActivation ? r.stored(rounded) : r.stored_fp32(rounded);
    }
  }
  return out;
}

// x w^T + bias
Matrix linear(const Matrix& x, const Matrix& w, const Matrix* bias, Rounding& r) {
  Matrix y = product(
      x.rows, w.rows, x.cols, [&](int64_t i, int64_t k) { return x.at(i, k); },
      [&](int64_t j, int64_t k) { return w.at(j, k); }, r, Kept::kActivation);
  if (bias != nullptr) {
    for (int64_t i = 0; i < y.rows; ++i) {
      for (int64_t j = 0; j < y.cols; ++j) y.at(i, j) = r.stored(y.at(i, j) + bias->at(0, j));
    }
  }
  return y;
}

void add_to(Matrix& sum, const Matrix& x) {
  for (size_t i = 0; i < sum.v.size(); ++i) sum.v[i] += x.v[i];
}

// dw += dy^T x, dbias += column sums of dy; returns dy w.
Matrix linear_backward(Matrix& dw, Matrix* dbias, const Matrix& dy, const Matrix& x,
                       const Matrix& w, Rounding& r) {
  add_to(dw, product(
                 dy.cols, x.cols, dy.rows, [&](int64_t o, int64_t n) { return dy.at(n, o); },
                 [&](int64_t i, int64_t n) { return x.at(n, i); }, r, Kept::kGradient));
  if (dbias != nullptr) {
    for (int64_t o = 0; o < dy.cols; ++o) {
      double sum = 0, squares = 0;
      for (int64_t n = 0; n < dy.rows; ++n) {
        sum += dy.at(n, o);
        squares += dy.at(n, o) * dy.at(n, o);
      }
      dbias->at(0, o) += r.summed(sum, squares, dy.rows);
    }
  }
  return product(
      dy.rows, w.cols, dy.cols, [&](int64_t n, int64_t o) { return dy.at(n, o); },
      [&](int64_t i, int64_t o) { return w.at(o, i); }, r, Kept::kActivation);
}

// ---- norms ----------------------------------------------------------------------------

// (x - mean) / sqrt(variance + eps); mean 0 for RMSNorm. Returns 1 / sqrt(...).
double normalise(const double* x, int64_t n, NormKind kind, double eps, std::vector<double>& hat) {
  double mean = 0, variance = 0;
  const double count = static_cast<double>(n);
  if (kind == NormKind::kLayer) {
    for (int64_t i = 0; i < n; ++i) mean += x[i] / count;
  }
  for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean) / count;
  const double rstd = 1 / std::sqrt(variance + eps);
  hat.resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) hat[static_cast<size_t>(i)] = (x[i] - mean) * rstd;
  return rstd;
}

void norm_row(double* y, const double* x, int64_t n, NormKind kind, double eps, const Matrix& w,
              const Matrix* b, Rounding& r) {
  std::vector<double> hat;
  normalise(x, n, kind, eps, hat);
  for (int64_t i = 0; i < n; ++i) {
    y[i] = r.stored(hat[static_cast<size_t>(i)] * w.at(0, i) + (b ? b->at(0, i) : 0.0));
  }
}

// dx += ..., dw += ..., db += ...
void norm_row_backward(double* dx, const double* dy, const double* x, int64_t n, NormKind kind,
                       double eps, const Matrix& w, Matrix& dw, Matrix* db, Rounding& r) {
  std::vector<double> hat;
  const double rstd = normalise(x, n, kind, eps, hat);
  double mean_d = 0, mean_dh = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = dy[i] * w.at(0, i), h = hat[static_cast<size_t>(i)];
    if (kind == NormKind::kLayer) mean_d += d / static_cast<double>(n);
    mean_dh += d * h / static_cast<double>(n);
    dw.at(0, i) += r.stored_fp32(dy[i] * h);
    if (db) db->at(0, i) += r.stored_fp32(dy[i]);
  }
  for (int64_t i = 0; i < n; ++i) {
    const double h = hat[static_cast<size_t>(i)];
    dx[i] = r.stored(dx[i] + r.stored_fp32(rstd * (dy[i] * w.at(0, i) - mean_d - h * mean_dh)));
  }
}

// ---- activations ----------------------------------------------------------------------

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const double kGeluScale = std::sqrt(2 / std::numbers::pi);

Matrix activate(const Matrix& x, Activation kind, int64_t width, Rounding& r) {
  Matrix y(x.rows, width);
  for (int64_t n = 0; n < x.rows; ++n) {
    for (int64_t f = 0; f < width; ++f) {
      const double a = x.at(n, f);
      double value = 0;
      switch (kind) {
        case Activation::kGelu:
          value = 0.5 * a * (1 + std::tanh(kGeluScale * (a + 0.044715 * a * a * a)));
          break;
        case Activation::kRelu2:
          value = a > 0 ? a * a : 0;
          break;
        case Activation::kSwiglu:
          value = a * sigmoid(a) * x.at(n, width + f);
          break;
      }
      y.at(n, f) = r.stored(value);
    }
  }
  return y;
}

Matrix activate_backward(const Matrix& dy, const Matrix& x, Activation kind, Rounding& r) {
  Matrix dx(x.rows, x.cols);
  for (int64_t n = 0; n < dy.rows; ++n) {
    for (int64_t f = 0; f < dy.cols; ++f) {
      const double a = x.at(n, f), d = dy.at(n, f);
      switch (kind) {
        case Activation::kGelu: {
          const double t = std::tanh(kGeluScale * (a + 0.044715 * a * a * a));
          const double inner = kGeluScale * (1 + 3 * 0.044715 * a * a);
          dx.at(n, f) = r.stored(d * (0.5 * (1 + t) + 0.5 * a * (1 - t * t) * inner));
          break;
        }
        case Activation::kRelu2:
          dx.at(n, f) = r.stored(a > 0 ? 2 * a * d : 0);
          break;
        case Activation::kSwiglu: {
          const double s = sigmoid(a), value = x.at(n, dy.cols + f);
          dx.at(n, f) = r.stored(d * value * s * (1 + a * (1 - s)));
          dx.at(n, dy.cols + f) = r.stored(d * a * s);
          break;
        }
      }
    }
  }
  return dx;
}

// ---- attention ------------------------------------------------------------------------

// Turns the query and key heads of every row by sign * position * theta^(-2 j / D).
void rotate(Matrix& qkv, const ModelConfig& m, int64_t seq_len, double sign, Rounding& r) {
  const int64_t D = m.head_dim, half = D / 2;
  for (int64_t n = 0; n < qkv.rows; ++n) {
    for (int64_t h = 0; h < m.n_heads + m.n_kv_heads; ++h) {
      for (int64_t j = 0; j < half; ++j) {
        const double angle =
            sign * static_cast<double>(n % seq_len) *
            std::pow(m.rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(D));
        double& a = qkv.at(n, h * D + j);
        double& b = qkv.at(n, h * D + half + j);
        const double turned_a = a * std::cos(angle) - b * std::sin(angle);
        const double turned_b = a * std::sin(angle) + b * std::cos(angle);
        a = r.stored(turned_a);
        b = r.stored(turned_b);
      }
    }
  }
}

// probs[(b H + h) T + i, j] = softmax over j <= i.
void attend(const Matrix& qkv, const ModelConfig& m, const Batch& batch, Matrix& probs, Matrix& out,
            Rounding& r) {
  const int64_t T = batch.seq_len, D = m.head_dim, H = m.n_heads, K = m.n_kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(D));
  probs = Matrix(batch.batch * H * T, T);
  out = Matrix(qkv.rows, H * D);
  for (int64_t b = 0; b < batch.batch; ++b) {
    for (int64_t h = 0; h < H; ++h) {
      const int64_t k_col = (H + h / (H / K)) * D, v_col = k_col + K * D;
      for (int64_t i = 0; i < T; ++i) {
        const int64_t row = (b * H + h) * T + i;
        double top = -std::numeric_limits<double>::infinity(), total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double dot = 0, squares = 0;
          for (int64_t d = 0; d < D; ++d) {
            const double term = qkv.at(b * T + i, h * D + d) * qkv.at(b * T + j, k_col + d);
            dot += term;
            squares += term * term;
          }
          probs.at(row, j) = r.stored_fp32(r.summed(dot, squares, D) * scale);
          top = std::max(top, probs.at(row, j));
        }
        for (int64_t j = 0; j <= i; ++j) total += std::exp(probs.at(row, j) - top);
        for (int64_t j = 0; j <= i; ++j) {
          probs.at(row, j) = r.stored(std::exp(probs.at(row, j) - top) / total);
        }
        for (int64_t d = 0; d < D; ++d) {
          double sum = 0;
          for (int64_t j = 0; j <= i; ++j) sum += probs.at(row, j) * qkv.at(b * T + j, v_col + d);
          out.at(b * T + i, h * D + d) = r.stored(sum);
        }
      }
    }
  }
}

Matrix attend_backward(const Matrix& d_out, const Matrix& qkv, const Matrix& probs,
                       const ModelConfig& m, const Batch& batch, Rounding& r) {
  const int64_t T = batch.seq_len, D = m.head_dim, H = m.n_heads, K = m.n_kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(D));
  Matrix d_qkv(qkv.rows, qkv.cols);
  std::vector<double> dp(static_cast<size_t>(T));
  for (int64_t b = 0; b < batch.batch; ++b) {
    for (int64_t h = 0; h < H; ++h) {
      const int64_t k_col = (H + h / (H / K)) * D, v_col = k_col + K * D;
      for (int64_t i = 0; i < T; ++i) {
        const int64_t row = (b * H + h) * T + i, q_row = b * T + i;
        double mean = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double sum = 0;
          for (int64_t d = 0; d < D; ++d) {
            sum += d_out.at(q_row, h * D + d) * qkv.at(b * T + j, v_col + d);
          }
          dp[static_cast<size_t>(j)] = r.stored_fp32(sum);
          mean += probs.at(row, j) * sum;
        }
        mean = r.stored(mean);  // the product takes it from the stored output
        for (int64_t j = 0; j <= i; ++j) {
          const int64_t k_row = b * T + j;
          const double p = probs.at(row, j);
          const double ds = r.stored(p * (dp[static_cast<size_t>(j)] - mean)) * scale;
          for (int64_t d = 0; d < D; ++d) {
            d_qkv.at(k_row, v_col + d) += p * d_out.at(q_row, h * D + d);
            d_qkv.at(q_row, h * D + d) += ds * qkv.at(k_row, k_col + d);
            d_qkv.at(k_row, k_col + d) += ds * qkv.at(q_row, h * D + d);
          }
        }
      }
    }
  }
  for (double& x : d_qkv.v) x = r.stored(x);
  return d_qkv;
}

// ---- the model ------------------------------------------------------------------------

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
    return linear(x, w(name + ".weight"), w_or_null(name + ".bias"), r_);
  }
  Matrix linear_layer_backward(const std::string& name, const Matrix& dy, const Matrix& x,
                               Weights& g) {
    return linear_backward(g.at(name + ".weight"), g_or_null(g, name + ".bias"), dy, x,
                           w(name + ".weight"), r_);
  }
  Matrix norm_layer(const std::string& name, const Matrix& x) {
    Matrix y(x.rows, x.cols);
    for (int64_t n = 0; n < x.rows; ++n) {
      norm_row(&y.at(n, 0), x.v.data() + n * x.cols, x.cols, m_.norm, m_.norm_eps,
               w(name + ".weight"), w_or_null(name + ".bias"), r_);
    }
    return y;
  }
  void norm_layer_backward(const std::string& name, Matrix& dx, const Matrix& dy, const Matrix& x,
                           Weights& g) {
    for (int64_t n = 0; n < x.rows; ++n) {
      norm_row_backward(&dx.at(n, 0), dy.v.data() + n * dy.cols, x.v.data() + n * x.cols, x.cols,
                        m_.norm, m_.norm_eps, w(name + ".weight"), g.at(name + ".weight"),
                        g_or_null(g, name + ".bias"), r_);
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
      norm_row(&out.at(n, h * m_.head_dim), in.v.data() + n * in.cols + h * m_.head_dim,
               m_.head_dim, NormKind::kRms, m_.norm_eps, w(head_norm(q, k, h)), nullptr, r_);
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
      norm_row_backward(out, dy.v.data() + n * dy.cols + h * m_.head_dim,
                        x.v.data() + n * x.cols + h * m_.head_dim, m_.head_dim, NormKind::kRms,
                        m_.norm_eps, w(name), g.at(name), nullptr, r_);
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
    if (m_.position == PositionKind::kRope) rotate(s.qkv, m_, T, 1.0, r_);
    attend(s.qkv, m_, batch_, s.probs, s.attention, r_);
    add_stored(x, linear_layer(prefix + "attn_out", s.attention));
    s.x2 = x;
    s.norm2 = norm_layer(prefix + "norm2", x);
    s.up = linear_layer(prefix + "up", s.norm2);
    s.act = activate(s.up, m_.activation, m_.ffn_width, r_);
    add_stored(x, linear_layer(prefix + "down", s.act));
    blocks_.push_back(std::move(s));
  }
  last_ = x;
  final_norm_ = norm_layer("final_norm", x);
  ReferenceResult result;
  result.logits = linear(final_norm_, w(head_name()), nullptr, r_);
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
  const Matrix d_final =
      linear_backward(g.at(head_name()), nullptr, d_logits, final_norm_, w(head_name()), r_);
  Matrix dx(N_, m_.width);
  norm_layer_backward("final_norm", dx, d_final, last_, g);
  for (int64_t l = m_.n_layers; l-- > 0;) {
    const std::string prefix = "blocks." + std::to_string(l) + ".";
    const BlockState& s = blocks_[static_cast<size_t>(l)];
    const Matrix d_act = linear_layer_backward(prefix + "down", dx, s.act, g);
    const Matrix d_up = activate_backward(d_act, s.up, m_.activation, r_);
    const Matrix d_norm2 = linear_layer_backward(prefix + "up", d_up, s.norm2, g);
    norm_layer_backward(prefix + "norm2", dx, d_norm2, s.x2, g);
    const Matrix d_attention = linear_layer_backward(prefix + "attn_out", dx, s.attention, g);
    Matrix d_qkv = attend_backward(d_attention, s.qkv, s.probs, m_, batch_, r_);
    if (m_.position == PositionKind::kRope) rotate(d_qkv, m_, batch_.seq_len, -1.0, r_);
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
