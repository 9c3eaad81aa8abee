// Whether this machine multiplies in a format itself or computes what the format's hardware would:
// the one place that says so, for logs, reports and files.
#pragma once

#include <string_view>

#include "precision/recipe.h"

namespace qstep::trainer {

// The compute type: FP32 never is, BF16 where the processor has no product of it.
bool emulated(precision::ComputeType compute);
// A quantized operand always is on a CPU: it is decoded to BF16, exactly.
inline bool emulated(const precision::QuantSpec& spec, precision::ComputeType compute) {
  return spec.quantized() || emulated(compute);
}
// Any of its operands, in any layer and at any step.
inline bool emulated(const precision::Recipe& recipe) {
  return recipe.quantized() || emulated(recipe.compute);
}

// What quantized formats are on this machine, for people.
inline constexpr std::string_view kQuantizedFormatsText =
    "emulated: rounded bit for bit, decoded and multiplied in BF16";

constexpr std::string_view emulation_text(bool emulated) {
  return emulated ? "emulated" : "native";
}

}  // namespace qstep::trainer
