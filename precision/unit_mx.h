// A unit of MXFP4 or MXFP8: a power of two per 32 elements.
#pragma once

#include "precision/mx_scale.h"
#include "precision/unit_rounding.h"

namespace qstep::precision {

template <ElementFormat kFormat, int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void mx_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                             UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                             const Random& random) {
  const QuantSpec& spec = plan.spec;
  const float shrink = spec.headroom == Headroom::kThreeQuarters ? 0.75f : 1.0f;
  QSTEP_UNROLL_ARRAY(kUnit, 1)
  for (int b = 0; 32 * b < kUnit; ++b) {
    F* const x = v + 32 * b;
    const auto q = codes_from(codes, 32 * b);
    const BlockAmax<F> own = amax_of<32>(x);
    raw = max_bits(raw, own.raw);
    const F amax = spec.block.square() ? context.block_amax : own.amax;
    const auto code = spec.scale == ScaleRule::kPow2Up ? mx_scale_up<kFormat>(amax)
                                                       : mx_scale_floor<kFormat>(amax);
    const F s = e8m0_value<F>(code), enc = e8m0_reciprocal<F>(code);
    scales.block[b] = s;
    scales.enc[b] = shrink == 1.0f ? enc : enc * all<F>(shrink);
    if (kFormat == ElementFormat::kE2m1 && spec.rounding == Rounding::kStochastic) {
      QSTEP_UNROLL_DEVICE(2)
      for (int half = 0; half < 2; ++half) {
        round_block_stochastic(
            x + 16 * half, own.raw, enc, s,
            StochasticBlock<F>{plan.rounder, shrink, random(2 * b + half, plan.element_stream)},
            codes_from(q, 16 * half));
      }
    } else {
      if (shrink != 1.0f) {
        QSTEP_UNROLL_DEVICE(32)
        for (int i = 0; i < 32; ++i) x[i] = (x[i] * enc) * all<F>(shrink);
      }
      const F factor = shrink == 1.0f ? enc : all<F>(1.0f);
      round_block<kFormat, 32>(x, own.raw, factor, s, q);
    }
  }
}

}  // namespace qstep::precision
