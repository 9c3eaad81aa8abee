// What a columnwise operand with Source::kForward is made from, spelled out: the two steps of
// cpu::quantize for whoever wants the codes of both orientations.
#pragma once

#include <vector>

#include "ops/quantized_tensor.h"

namespace qstep::ops {

struct ForwardSource {
  std::vector<Bf16> values;  // [rows, cols]
  float factor = 1.0f;       // what the columnwise scale[0] is to be multiplied with
};

// What the rowwise operand stands for. Where both have a factor for the whole tensor it passes from
// one to the other, so that the values are what was decoded, exactly; other factors are multiplied
// in and rounded to BF16.
ForwardSource forward_source(const QuantizedTensor& rowwise, const QuantSpec& columnwise);

}  // namespace qstep::ops
