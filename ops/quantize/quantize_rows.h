// NVFP4 along the rows of a BF16 tensor, in blocks of 1x16 and 16x16: by far the most common work
// of a quantizer, done where the numbers lie (simd_words.h).
#pragma once

#include "ops/quantize/quantize_side.h"

namespace qstep::ops::cpu {

// Returns how many columns of the chunk, from its first, were quantized, with the bits of
// quantize_chunk: whole strips; none where the side or the machine asks for something else.
int64_t quantize_rows(const Side& side, const Bf16* x, int64_t ld, const Chunk& chunk,
                      ChunkResult& result);

}  // namespace qstep::ops::cpu
