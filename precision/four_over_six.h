// Four over six (arXiv 2512.02010; numerics 7.7, in Transformer Engine's form): E2M1 has nothing
// between 4 and 6, so a block is quantized twice, its amax mapped to 6 or to 4, and the one with
// the smaller error is kept.
//
//   base = fl(fl(block_amax / 6) S_enc)
//   s6   = e4m3(min(base, 448)),  s4 = e4m3(min(fl(1.5 base), 448))
//   err  = sum over the elements, ascending, of |v - x| or fl((v - x)^2), or their largest |v - x|,
//          v = fl(fl(fl(q s) amax) / (6 e4m3_max));      4 where err4 < err6
#pragma once

#include "precision/nvfp4.h"
#include "precision/quant_spec.h"

namespace qstep::precision {

template <class F>
struct FourOverSixTensor {
  F amax;       // of the tensor or of the row
  float range;  // 6 e4m3_max
};

template <class F>
QSTEP_HD inline BlockScale<F> four_over_six_scale(F block_amax, const Nvfp4Factors<F>& t,
                                                  bool headroom, float stretch) {
  const F base = (block_amax / all<F>(nvfp4_target(headroom))) * t.s_enc;
  const F s = round_nearest<ElementFormat::kE4m3>(min(base * all<F>(stretch), all<F>(448.0f)));
  return {s, nvfp4_encode_scale(s, t.s_dec)};
}

// The error of quantizing x[0, n) with `scale`, per lane.
template <int kCount, class F>
QSTEP_HD inline F four_over_six_error(const F* x, const BlockScale<F>& scale,
                                      const FourOverSixTensor<F>& tensor, FourOverSix rule) {
  F error = all<F>(0.0f);
  QSTEP_UNROLL_DEVICE(kCount)
  for (int i = 0; i < kCount; ++i) {
    const F q = round_nearest<ElementFormat::kE2m1>(x[i] * scale.enc);
    const F v = ((q * scale.s) * tensor.amax) / all<F>(tensor.range);
    const F d = v - x[i];
    if (rule == FourOverSix::kMse) {
      error = error + d * d;
    } else if (rule == FourOverSix::kMae) {
      error = error + magnitude(d);
    } else {
      error = max(magnitude(d), error);
    }
  }
  return error;
}

}  // namespace qstep::precision
