// AdamW and the factor that clips its gradient. Loshchilov and Hutter, "Decoupled weight decay
// regularization", 2019, algorithm 2. One formula, written once, gives the same bits one element at
// a time, sixteen at a time and on a GPU: every operation rounds on its own, in the order written.
#pragma once

#include <cmath>
#include <limits>

#include "ops/ops.h"
#include "precision/hd.h"
#include "precision/lanes.h"

namespace qstep::ops {

// What is the same for every element, in the type the formula computes in (float or F32x16).
template <class F>
struct AdamWCoefficients {
  F factor;  // clips the gradient
  F beta1;
  F one_minus_beta1;
  F beta2;
  F one_minus_beta2;
  F inv_correction1;  // 1 / (1 - beta1^t)
  F inv_correction2;  // 1 / (1 - beta2^t)
  F eps;
  F lr;
  F weight_decay;
};

// The powers and reciprocals in FP64, rounded once. Runs on the host for every backend.
inline AdamWCoefficients<float> adamw_coefficients(const AdamWParams& p, float factor) {
  const auto inv_correction = [&](float beta) {
    const double power = std::pow(static_cast<double>(beta), static_cast<double>(p.t));
    return static_cast<float>(1.0 / (1.0 - power));
  };
  return {.factor = factor,
          .beta1 = p.beta1,
          .one_minus_beta1 = 1.0f - p.beta1,
          .beta2 = p.beta2,
          .one_minus_beta2 = 1.0f - p.beta2,
          .inv_correction1 = inv_correction(p.beta1),
          .inv_correction2 = inv_correction(p.beta2),
          .eps = p.eps,
          .lr = p.lr,
          .weight_decay = p.weight_decay};
}

// One update of master and its moments m and v by `grad`.
template <class F>
QSTEP_HD inline void adamw_update(F& master, F& m, F& v, F grad, const AdamWCoefficients<F>& c) {
  using std::sqrt;  // F32x16 brings its own
  const F g = c.factor * grad;
  m = c.beta1 * m + c.one_minus_beta1 * g;
  v = c.beta2 * v + c.one_minus_beta2 * g * g;
  const F step = (m * c.inv_correction1) / (sqrt(v * c.inv_correction2) + c.eps);
  master = master - c.lr * (step + c.weight_decay * master);
}

// min(1, max_norm / norm), or NaN when norm or loss is not finite; max_norm 0 = no clip.
QSTEP_HD inline float clip_factor_of(float norm, float loss, float max_norm) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (!(precision::magnitude(norm) < kInfinity && precision::magnitude(loss) < kInfinity)) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0f;
}

// w [n] FP32 or BF16; master, m, v, grad [n] FP32; factor [1] FP32; all contiguous. An FP32 w may
// be master.
inline void check_adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
                        const Tensor& grad, const Tensor& factor, const AdamWParams& params) {
  const int64_t n = master.size();
  expect_vector(w, n, "adamw: w");
  expect_vector(master, n, "adamw: master");
  expect_vector(m, n, "adamw: m");
  expect_vector(v, n, "adamw: v");
  expect_vector(grad, n, "adamw: grad");
  expect_vector(factor, 1, "adamw: factor");
  for (const Tensor* x : {&master, &m, &v, &grad, &factor}) {
    expect_dtype(*x, Dtype::kF32, "adamw: master, m, v, grad and factor");
  }
  check(params.t >= 1, "adamw: t counts from 1");
}

// factor, norm, loss [1] FP32.
inline void check_clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss) {
  for (const Tensor* x : {&factor, &norm, &loss}) {
    expect_vector(*x, 1, "clip_factor: factor, norm and loss");
    expect_dtype(*x, Dtype::kF32, "clip_factor: factor, norm and loss");
  }
}

namespace cpu {

// Reads 16 and writes 12 bytes per parameter, and writes w.
void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
           const Tensor& grad, const Tensor& factor, const AdamWParams& params);
void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss, float max_norm);

}  // namespace cpu

class CudaContext;
namespace cuda {

void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
           const Tensor& grad, const Tensor& factor, const AdamWParams& params,
           CudaContext& context);
void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss, float max_norm,
                 CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
