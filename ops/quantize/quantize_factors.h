// The FP32 factors of a tensor, or of an operand row, that follow from its amax.
#pragma once

#include "ops/quantize/unit_plan.h"

namespace qstep::ops {

struct TensorFactors {
  float outer_amax = 0;                    // nvfp4: amax; MS-EDEN: s_dec
  precision::Nvfp4Factors<float> outer{};  // nvfp4
  float scale = 1;                         // fp8: what elements are multiplied by
  float stored = 1;                        // QuantizedTensor::scale
};

// The scale of fp8 elements under this amax.
QSTEP_HD inline float fp8_element_scale(const precision::UnitPlan& plan, float amax) {
  return precision::fp8_scale(amax, precision::traits(element_of(plan.spec.format)).max,
                              precision::kMaxFloat,
                              plan.spec.scale == precision::ScaleRule::kFp32Pow2);
}

// Of a spec with a factor per tensor; delayed_scale counts for AmaxScope::kDelayed alone.
QSTEP_HD inline TensorFactors tensor_factors(const precision::UnitPlan& plan, float amax,
                                             float delayed_scale) {
  const QuantSpec& spec = plan.spec;
  TensorFactors f;
  if (spec.format == precision::QuantFormat::kNvfp4) {
    if (spec.rounding == precision::Rounding::kMsEden) {
      f.outer_amax = precision::ms_eden_factor(amax);
    } else {
      f.outer_amax = amax;
      f.outer = precision::nvfp4_factors(amax, plan.range, plan.headroom);
    }
    f.stored = f.outer_amax;
  } else if (precision::is_fp8_format(spec.format)) {
    f.scale =
        spec.amax == precision::AmaxScope::kDelayed ? delayed_scale : fp8_element_scale(plan, amax);
    f.stored = 1.0f / f.scale;
  } else {
    f.stored = 4.0f;  // mxfp4 with 3/4 of headroom: 4/3
  }
  return f;
}

// The entry of tile_scales of an operand row with AmaxScope::kRow.
QSTEP_HD inline float row_factor(const precision::UnitPlan& plan, float amax) {
  return plan.spec.format == precision::QuantFormat::kNvfp4 ? amax * (1.0f / plan.range)
                                                            : 1.0f / fp8_element_scale(plan, amax);
}

}  // namespace qstep::ops
