// MS-EDEN (Quartet II, arXiv 2601.22813; numerics 7.8): elements to the nearest, then one
// correction per rotated group of D makes the estimate unbiased; all randomness is in the scales.
//
//   val_max = 6 / (17/16 * 0.93)             room for the correction to grow a scale
//   s_dec   = amax / 255.99 / val_max        1 where amax is 0: the factor of the tensor
//   s       = e4m3(block_amax / val_max / s_dec), 0 -> 1;     u = v / (s s_dec);   q = e2m1(u)
//   c       = sum_D u^2 / sum_D u q          1 where the denominator is 0
//   s'      = stochastic e4m3(s c);          result q s' s_dec
//
// The reference breaks ties of q away from zero; here they go to even, as the hardware's do.
#pragma once

#include "precision/stochastic_rounding.h"

namespace qstep::precision {

inline constexpr float kMsEdenTarget = static_cast<float>(6.0 / (17.0 / 16.0 * 0.93));

template <class F>
QSTEP_HD inline F ms_eden_factor(F amax) {
  const F s = (amax / all<F>(255.99f)) / all<F>(kMsEdenTarget);
  return select(equal(s, all<F>(0.0f)), all<F>(1.0f), s);
}

// The scale of a block before the correction.
template <class F>
QSTEP_HD inline F ms_eden_block_scale(F block_amax, F s_dec) {
  const F s = round_nearest<ElementFormat::kE4m3>((block_amax / all<F>(kMsEdenTarget)) / s_dec);
  return select(equal(s, all<F>(0.0f)), all<F>(1.0f), s);
}

// Running sums of the correction.
template <class F>
struct MsEdenSums {
  F uu, uq;
};

// v[0, n) of one block becomes q.
template <class F>
QSTEP_HD inline void ms_eden_round_block(F* v, int n, F s, F s_dec, MsEdenSums<F>& sums) {
  const F divisor = s * s_dec;
  QSTEP_UNROLL_DEVICE(16)
  for (int i = 0; i < n; ++i) {
    const F u = v[i] / divisor;
    const F q = round_nearest<ElementFormat::kE2m1>(u);
    sums.uu = sums.uu + u * u;
    sums.uq = sums.uq + u * q;
    v[i] = q;
  }
}

template <class F>
QSTEP_HD inline F ms_eden_correction(const MsEdenSums<F>& sums) {
  return select(equal(sums.uq, all<F>(0.0f)), all<F>(1.0f), sums.uu / sums.uq);
}

}  // namespace qstep::precision
