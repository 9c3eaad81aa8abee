// From a spec to what its quantizer computes with: the plan of its units, and its elements.
#pragma once

#include "ops/quantized_tensor.h"
#include "precision/quantize_unit.h"

namespace qstep::ops {

// What is the same for every unit of a tensor of type `source`.
precision::UnitPlan unit_plan(const QuantSpec& spec, Orientation orientation, Dtype source,
                              const QuantRandom& random);

// The stored bits of a value of the format.
QSTEP_HD inline uint8_t encode_element(precision::ElementFormat format, float value) {
  switch (format) {
    case precision::ElementFormat::kE4m3:
      return precision::encode<precision::ElementFormat::kE4m3>(value);
    case precision::ElementFormat::kE5m2:
      return precision::encode<precision::ElementFormat::kE5m2>(value);
    default:
      return precision::encode<precision::ElementFormat::kE2m1>(value);
  }
}

// The byte of a block's scale: E4M3 in nvfp4, E8M0 in the mx formats.
QSTEP_HD inline uint8_t encode_block_scale(precision::QuantFormat format, float scale) {
  return format == precision::QuantFormat::kNvfp4
             ? precision::encode<precision::ElementFormat::kE4m3>(scale)
             : static_cast<uint8_t>(precision::bits(scale) >> 23);
}

// What lies this far up rounds beyond the largest value: it is clipped, not rounded.
QSTEP_HD constexpr float saturation_limit(precision::ElementFormat format) {
  return format == precision::ElementFormat::kE4m3
             ? precision::kOverflow<precision::ElementFormat::kE4m3>
         : format == precision::ElementFormat::kE5m2
             ? precision::kOverflow<precision::ElementFormat::kE5m2>
             : precision::kOverflow<precision::ElementFormat::kE2m1>;
}

}  // namespace qstep::ops
