// From a spec to what its quantizer computes with: the plan of its units, and its elements.
#pragma once

#include "ops/quantized_tensor.h"
#include "precision/quantize_unit.h"

namespace qstep::ops {

// What is the same for every unit of a tensor of type `source`.
precision::UnitPlan unit_plan(const QuantSpec& spec, Orientation orientation, Dtype source,
                              const QuantRandom& random);

precision::ElementFormat element_of(precision::QuantFormat format);

// The stored bits of a value of the format.
uint8_t encode_element(precision::ElementFormat format, float value);

}  // namespace qstep::ops
