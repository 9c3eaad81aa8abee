#include "ops/adamw.h"

#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

AdamWCoefficients<F32x16> broadcast_all(const AdamWCoefficients<float>& c) {
  return {.factor = broadcast(c.factor),
          .beta1 = broadcast(c.beta1),
          .one_minus_beta1 = broadcast(c.one_minus_beta1),
          .beta2 = broadcast(c.beta2),
          .one_minus_beta2 = broadcast(c.one_minus_beta2),
          .inv_correction1 = broadcast(c.inv_correction1),
          .inv_correction2 = broadcast(c.inv_correction2),
          .eps = broadcast(c.eps),
          .lr = broadcast(c.lr),
          .weight_decay = broadcast(c.weight_decay)};
}

}  // namespace

void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
           const Tensor& grad, const Tensor& factor, const AdamWParams& params) {
  check_adamw(w, master, m, v, grad, factor, params);
  const float clip = *factor.as<float>();
  if (std::isnan(clip)) return;

  constexpr int64_t kBlock = 16384;  // elements; six streams of 64 KiB
  const AdamWCoefficients<F32x16> c = broadcast_all(adamw_coefficients(params, clip));
  float* const pmaster = master.as<float>();
  float* const pm = m.as<float>();
  float* const pv = v.as<float>();
  const float* const pgrad = grad.as<float>();
  dispatch_float(w.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const pw = w.as<T>();
    parallel_blocks(master.size(), kBlock, [&](int64_t first, int64_t n) {
      for_each_group(n, [&](int64_t offset, int64_t lanes) {
        const int64_t i = first + offset;
        F32x16 master_i = load_n(pmaster + i, lanes);
        F32x16 m_i = load_n(pm + i, lanes);
        F32x16 v_i = load_n(pv + i, lanes);
        adamw_update(master_i, m_i, v_i, load_n(pgrad + i, lanes), c);
        store_n(pm + i, m_i, lanes);
        store_n(pv + i, v_i, lanes);
        store_n(pmaster + i, master_i, lanes);
        store_n(pw + i, master_i, lanes);
      });
    });
  });
}

void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss, float max_norm) {
  check_clip_factor(factor, norm, loss);
  *factor.as<float>() = clip_factor_of(*norm.as<float>(), *loss.as<float>(), max_norm);
}

}  // namespace qstep::ops::cpu
