#include "tests/support/reference_layers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace qstep::test {

using ops::Activation;
using trainer::ModelConfig;
using trainer::NormKind;

double Rounding::next() {
  state_ = state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
  return static_cast<double>(static_cast<int64_t>(state_)) * 0x1p-63;
}

double Rounding::summed(double sum, double squares, int64_t terms) {
  if (add_ == 0) return sum;
  return sum + add_ * next() * std::sqrt(static_cast<double>(terms) * squares);
}

namespace reference {
namespace {

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

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const double kGeluScale = std::sqrt(2 / std::numbers::pi);

}  // namespace

// ---- linear layers --------------------------------------------------------------------

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

void norm_row(double* y, const double* x, int64_t n, NormKind kind, double eps, const Matrix& w,
              const Matrix* b, Rounding& r) {
  std::vector<double> hat;
  normalise(x, n, kind, eps, hat);
  for (int64_t i = 0; i < n; ++i) {
    y[i] = r.stored(hat[static_cast<size_t>(i)] * w.at(0, i) + (b ? b->at(0, i) : 0.0));
  }
}

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

void attend(const Matrix& qkv, const ModelConfig& m, int64_t batch, int64_t T, Matrix& probs,
            Matrix& out, Rounding& r) {
  const int64_t D = m.head_dim, H = m.n_heads, K = m.n_kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(D));
  probs = Matrix(batch * H * T, T);
  out = Matrix(qkv.rows, H * D);
  for (int64_t b = 0; b < batch; ++b) {
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
                       const ModelConfig& m, int64_t batch, int64_t T, Rounding& r) {
  const int64_t D = m.head_dim, H = m.n_heads, K = m.n_kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(D));
  Matrix d_qkv(qkv.rows, qkv.cols);
  std::vector<double> dp(static_cast<size_t>(T));
  for (int64_t b = 0; b < batch; ++b) {
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

}  // namespace reference
}  // namespace qstep::test
