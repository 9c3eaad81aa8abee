// AdamW (ops/adamw.h) for the CUDA backend: one launch a call, the bits of the CPU's. Reads 16 and
// writes 12 bytes per parameter, and writes w.
#pragma once

#include <cmath>

#include "ops/adamw.h"
#include "ops/group.h"
#include "ops/recorder.h"

namespace qstep::ops::device {

template <class T>
struct AdamWUpdate {
  Row<T> w;
  Row<float> master, m, v;
  Row<const float> grad;
  const float* factor;
  AdamWParams params;  // of which coefficients were made
  AdamWCoefficients<float> coefficients;

  // For recorded calls (ops/recorder.h).
  bool depends_on_moment() const { return true; }
  void move_to(const Moment& moment) {
    params = at(params, moment);
    coefficients = adamw_coefficients(params, 1.0f);
  }

  QSTEP_HD void operator()(int64_t g) const {
    AdamWCoefficients<float> c = coefficients;
    c.factor = *factor;
    if (precision::is_nan(c.factor)) return;
    Group new_master = load(master, g), new_m = load(m, g), new_v = load(v, g);
    const Group gradient = load(grad, g);
    QSTEP_UNROLL(8)
    for (int i = 0; i < kGroup; ++i) {
      adamw_update(new_master.v[i], new_m.v[i], new_v.v[i], gradient.v[i], c);
    }
    store(m, g, new_m);
    store(v, g, new_v);
    store(master, g, new_master);
    store(w, g, new_master);
  }
};

struct ClipFactor {
  float* factor;
  const float *norm, *loss;
  float max_norm;

  QSTEP_HD void operator()(int64_t) const { *factor = clip_factor_of(*norm, *loss, max_norm); }
};

template <class Launch>
void adamw(const Launch& launch, const Tensor& w, const Tensor& master, const Tensor& m,
           const Tensor& v, const Tensor& grad, const Tensor& factor, const AdamWParams& params) {
  check_adamw(w, master, m, v, grad, factor, params);
  dispatch_float(w.dtype, [&]<class T>(T) {
    launch.each(n_groups(master.size()),
                AdamWUpdate<T>{row_of<T>(w), row_of<float>(master), row_of<float>(m),
                               row_of<float>(v), row_of<const float>(grad), factor.as<float>(),
                               params, adamw_coefficients(params, 1.0f)});
  });
}

template <class Launch>
void clip_factor(const Launch& launch, const Tensor& factor, const Tensor& norm, const Tensor& loss,
                 float max_norm) {
  check_clip_factor(factor, norm, loss);
  launch.each(1, ClipFactor{factor.as<float>(), norm.as<float>(), loss.as<float>(), max_norm});
}

}  // namespace qstep::ops::device
