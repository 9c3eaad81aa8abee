// Quantizes a unit (precision/unit.h). Values in, values out:
//
//   v (raw)  ->  signs, Hadamard, BF16  ->  block amax  ->  scale  ->  round(v enc)  ->  q s
//
// This is the whole arithmetic of the block-scaled formats, the same source for a CPU's sixteen
// lanes and for a GPU's thread.
#pragma once

#include <type_traits>

#include "precision/unit_fp8.h"
#include "precision/unit_hadamard.h"
#include "precision/unit_mx.h"
#include "precision/unit_nvfp4.h"

namespace qstep::precision {

// v[0, kUnit) becomes the decoded values, codes times block scales, or what CodesAlone says. kUnit
// is plan.unit and kFormat plan.spec.format, at compile time.
template <QuantFormat kFormat, int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void quantize_unit_of(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                      UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                                      const Random& random) {
  if constexpr (kFormat == QuantFormat::kNvfp4) {
    if (plan.spec.rounding == Rounding::kMsEden) {
      return ms_eden_unit<kUnit>(plan, v, context, scales, raw, codes, random);
    }
    if constexpr (kUnit == kMaxUnit) {
      if (plan.spec.amax == AmaxScope::kGroup128) {
        return nvfp4_group_unit(plan, v, scales, raw, codes, random);
      }
    }
    nvfp4_unit<kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kMxfp4) {
    mx_unit<ElementFormat::kE2m1, kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kMxfp8E4m3) {
    mx_unit<ElementFormat::kE4m3, kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kMxfp8E5m2) {
    mx_unit<ElementFormat::kE5m2, kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kFp8E4m3) {
    fp8_block_unit<ElementFormat::kE4m3, kUnit>(plan, v, context, scales, raw, codes);
  } else if constexpr (kFormat == QuantFormat::kFp8E5m2) {
    fp8_block_unit<ElementFormat::kE5m2, kUnit>(plan, v, context, scales, raw, codes);
  }
}

// The same, the format at run time.
template <int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void quantize_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                   UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                                   const Random& random) {
  const QuantFormat format = plan.spec.format;
  if (format == QuantFormat::kNvfp4) {
    return quantize_unit_of<QuantFormat::kNvfp4, kUnit>(plan, v, context, scales, raw, codes,
                                                        random);
  }
  if constexpr (kUnit >= 32) {
    if (format == QuantFormat::kMxfp4) {
      return quantize_unit_of<QuantFormat::kMxfp4, kUnit>(plan, v, context, scales, raw, codes,
                                                          random);
    }
    if (format == QuantFormat::kMxfp8E4m3) {
      return quantize_unit_of<QuantFormat::kMxfp8E4m3, kUnit>(plan, v, context, scales, raw, codes,
                                                              random);
    }
    if (format == QuantFormat::kMxfp8E5m2) {
      return quantize_unit_of<QuantFormat::kMxfp8E5m2, kUnit>(plan, v, context, scales, raw, codes,
                                                              random);
    }
  }
  if constexpr (kUnit == kMaxUnit) {
    if (format == QuantFormat::kFp8E4m3) {
      return quantize_unit_of<QuantFormat::kFp8E4m3, kUnit>(plan, v, context, scales, raw, codes,
                                                            random);
    }
    if (format == QuantFormat::kFp8E5m2) {
      return quantize_unit_of<QuantFormat::kFp8E5m2, kUnit>(plan, v, context, scales, raw, codes,
                                                            random);
    }
  }
}

// f(std::integral_constant) with the unit as a compile-time number.
template <class F>
inline void dispatch_unit(int unit, F&& f) {
  switch (unit) {
    case 16:
      return f(std::integral_constant<int, 16>{});
    case 32:
      return f(std::integral_constant<int, 32>{});
    case 64:
      return f(std::integral_constant<int, 64>{});
    default:
      return f(std::integral_constant<int, 128>{});
  }
}

}  // namespace qstep::precision
