// What a unit is: the consecutive elements along k that depend on each other (a Hadamard group, an
// outer group, or one block), in every lane of F one unit; what its quantizer knows and leaves.
#pragma once

#include "precision/element_format.h"
#include "precision/nvfp4.h"
#include "precision/quant_spec.h"
#include "precision/random_bits.h"

namespace qstep::precision {

inline constexpr int kMaxUnit = 128;
inline constexpr int kMaxUnitBlocks = 8;

// What is the same for every unit of a tensor.
struct UnitPlan {
  QuantSpec spec;
  int unit = 16;                    // elements
  SignBits signs{};                 // with spec.hadamard
  float range = 0;                  // nvfp4: 6 e4m3_max, with headroom
  bool headroom = false;            // nvfp4: 16/17
  float largest_scale = kMaxFloat;  // fp8 blocks: stands for a scale that overflows
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t element_stream = 0, scale_stream = 0;
  StochasticRounder rounder = StochasticRounder::kPortable;
};

// What a unit learns from outside, per lane.
template <class F>
struct UnitContext {
  F outer_amax;           // nvfp4: amax of the tensor or of the row; MS-EDEN: s_dec
  Nvfp4Factors<F> outer;  // nvfp4: made from it
  F block_amax;           // square blocks: of the whole block
};

// What it leaves beside the values, per lane.
template <class F>
struct UnitScales {
  F block[kMaxUnitBlocks];  // the value of each block's scale (fp8: scale_inv)
  F enc[kMaxUnitBlocks];    // what its elements were multiplied by
  F outer;                  // outer groups: their FP32 scale
};

// Largest |v| of a block with NaN left out, per lane. `raw` is the largest of the bits of |v|:
// above 0x7F800000 where there is a NaN, equal where there is an infinity.
template <class F>
struct BlockAmax {
  F amax;
  BitsOf<F> raw;
};

template <int kCount, class F>
QSTEP_HD_INLINE BlockAmax<F> amax_of(const F* v) {
  using U = BitsOf<F>;
  const U mask = all_bits<F>(0x7FFFFFFFu);
  U raw = bits(v[0]) & mask;
  QSTEP_UNROLL_ARRAY(kCount, 32)
  for (int i = 1; i < kCount; ++i) raw = max_bits(raw, bits(v[i]) & mask);
  if (!any(less_bits(all_bits<F>(0x7F800000u), raw))) return {from_bits(raw), raw};
  F amax = all<F>(0.0f);
  QSTEP_UNROLL_DEVICE(kCount)
  for (int i = 0; i < kCount; ++i) amax = max(magnitude(v[i]), amax);
  return {amax, raw};
}

// No element of a block is NaN or rounds beyond the largest value, in any lane.
template <ElementFormat kFormat, class F>
QSTEP_HD_INLINE bool is_tame(BitsOf<F> raw, F enc) {
  return !any(
      less_bits(bits(all<F>(kOverflow<kFormat>)) - all_bits<F>(1), bits(from_bits(raw) * enc)));
}

}  // namespace qstep::precision
