// A unit of FP8 with a scale per block of 128.
#pragma once

#include "precision/fp8_scale.h"
#include "precision/unit_rounding.h"

namespace qstep::precision {

// FP8 with an FP32 scale per 128 elements (or 128x128): scale_inv is applied to the GEMM's partial
// sums, or, a power of two, to the values. A unit is all of a block's row, or, where the amax comes
// from outside, a part of it.
template <ElementFormat kFormat, int kUnit, class F, class Codes>
QSTEP_HD_INLINE void fp8_block_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                    UnitScales<F>& scales, BitsOf<F>& raw, Codes codes) {
  const bool pow2 = plan.spec.scale == ScaleRule::kFp32Pow2;
  // A NaN stays in this amax, and makes the scale 1 (numerics 5).
  F amax = context.block_amax;
  BitsOf<F> own = bits(amax);  // at least this part's
  if constexpr (kUnit == kMaxUnit) {
    own = amax_of<kUnit>(v).raw;
    if (!plan.spec.block.square()) amax = from_bits(own);
  }
  raw = max_bits(raw, own);
  const F scale = fp8_scale(amax, kElement<kFormat>.max, plan.largest_scale, pow2);
  const F inverse = all<F>(1.0f) / scale;
  scales.block[0] = inverse;
  scales.enc[0] = scale;
  scales.outer = inverse;
  round_block<kFormat, kUnit>(v, own, scale, pow2 ? inverse : all<F>(1.0f), codes);
}

}  // namespace qstep::precision
