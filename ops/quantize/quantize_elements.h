// FP8 with one scale for the tensor, or for each operand row: element by element, in any
// orientation.
#pragma once

#include "ops/quantize/quantize_side.h"

namespace qstep::ops::cpu {

// Quantizes the chunk of a side that is `elementwise`.
template <class T>
void quantize_elements(const Side& side, const T* x, int64_t ld, const Chunk& c,
                       ChunkResult& result);

}  // namespace qstep::ops::cpu
