// The layers of the decoder as plainly as they can be written: FP64, one loop after another.
// Tests hold the product against them (reference_model.h).
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/config/model_config.h"

namespace qstep::test {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<double> v;  // row by row

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), v(static_cast<size_t>(r * c), 0.0) {}
  double& at(int64_t r, int64_t c) { return v[static_cast<size_t>(r * cols + c)]; }
  double at(int64_t r, int64_t c) const { return v[static_cast<size_t>(r * cols + c)]; }
};

// Imitates a computation in lower precision, to find out how far its errors can carry: what would
// be stored is off by up to `store` of its size, and a sum of k terms by up to sqrt(k sum term^2)
// `add` (k roundings of independent sign). Without arguments: FP64 and nothing else.
class Rounding {
 public:
  Rounding() = default;
  Rounding(double add, double store, uint64_t seed) : add_(add), store_(store), state_(seed) {}

  double stored(double x) { return store_ == 0 ? x : x * (1 + store_ * next()); }
  double summed(double sum, double squares, int64_t terms);
  // The same arithmetic with what is kept in FP32 whatever the type of the activations.
  double stored_fp32(double x) { return add_ == 0 ? x : x * (1 + add_ * next()); }

 private:
  double next();  // uniform in [-1, 1)

  double add_ = 0, store_ = 0;
  uint64_t state_ = 0;
};

namespace reference {

// x w^T + bias
Matrix linear(const Matrix& x, const Matrix& w, const Matrix* bias, Rounding& r);
// dw += dy^T x, dbias += column sums of dy; returns dy w.
Matrix linear_backward(Matrix& dw, Matrix* dbias, const Matrix& dy, const Matrix& x,
                       const Matrix& w, Rounding& r);
void add_to(Matrix& sum, const Matrix& x);

// (x - mean) / sqrt(variance + eps) w + b; mean 0 and no b for RMSNorm.
void norm_row(double* y, const double* x, int64_t n, trainer::NormKind kind, double eps,
              const Matrix& w, const Matrix* b, Rounding& r);
// dx += ..., dw += ..., db += ...
void norm_row_backward(double* dx, const double* dy, const double* x, int64_t n,
                       trainer::NormKind kind, double eps, const Matrix& w, Matrix& dw, Matrix* db,
                       Rounding& r);

Matrix activate(const Matrix& x, ops::Activation kind, int64_t width, Rounding& r);
Matrix activate_backward(const Matrix& dy, const Matrix& x, ops::Activation kind, Rounding& r);

// Turns the query and key heads of every row by sign * position * theta^(-2 j / D).
void rotate(Matrix& qkv, const trainer::ModelConfig& m, int64_t seq_len, double sign, Rounding& r);

// Of `batch` sequences of T tokens. probs[(b H + h) T + i, j] = softmax over j <= i.
void attend(const Matrix& qkv, const trainer::ModelConfig& m, int64_t batch, int64_t T,
            Matrix& probs, Matrix& out, Rounding& r);
Matrix attend_backward(const Matrix& d_out, const Matrix& qkv, const Matrix& probs,
                       const trainer::ModelConfig& m, int64_t batch, int64_t T, Rounding& r);

}  // namespace reference
}  // namespace qstep::test
