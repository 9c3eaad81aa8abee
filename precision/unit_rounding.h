// The elements of a block, once its scale is known: rounded to the nearest or stochastically, and
// decoded or left for their codes.
#pragma once

#include "precision/stochastic_rounding.h"
#include "precision/unit.h"

namespace qstep::precision {

// What a quantizer leaves beside its scales, by the type of its argument `codes`:
//   F*           values, v = round(v enc) s; and where it is not null, codes[i] = round(v enc)
//   CodesAlone   v is what encode_nearest makes codes of: round(v enc), or v enc where that alone
//                rounds to the nearest. For a GPU, whose registers hold one of the two.
struct CodesAlone {};

// Those from element `first` of a unit on.
template <class F>
QSTEP_HD_INLINE F* codes_from(F* codes, int first) {
  return codes == nullptr ? nullptr : codes + first;
}
QSTEP_HD_INLINE CodesAlone codes_from(CodesAlone codes, int) { return codes; }

template <ElementFormat kFormat, int kCount, class F>
QSTEP_HD_INLINE void round_block(F* v, BitsOf<F>, F enc, F, CodesAlone) {
  QSTEP_UNROLL_ARRAY(kCount, 32)
  for (int i = 0; i < kCount; ++i) v[i] = v[i] * enc;
}
template <ElementFormat kFormat, int kCount, class F>
QSTEP_HD_INLINE void round_block(F* v, BitsOf<F> raw, F enc, F s, F* codes) {
  if (codes == nullptr && is_tame<kFormat>(raw, enc)) {
    QSTEP_UNROLL_ARRAY(kCount, 32)
    for (int i = 0; i < kCount; ++i) v[i] = round_nearest_tame<kFormat>(v[i] * enc) * s;
    return;
  }
  QSTEP_UNROLL_DEVICE(kCount)
  for (int i = 0; i < kCount; ++i) {
    const F q = round_nearest<kFormat>(v[i] * enc);
    if (codes != nullptr) codes[i] = q;
    v[i] = q * s;
  }
}

// How sixteen elements of E2M1 are rounded stochastically.
template <class F>
struct StochasticBlock {
  StochasticRounder rounder;
  float shrink;          // a second factor (MXFP4's 3/4), rounded apart
  RandomWords<F> words;  // a byte for each element
};

// v enc, with the second factor.
template <class F>
QSTEP_HD_INLINE F scaled(F v, F enc, float shrink) {
  const F u = v * enc;
  return shrink == 1.0f ? u : u * all<F>(shrink);
}

// v becomes round(v enc) by the GPU's instruction.
QSTEP_HD_INLINE void round_block_by_hardware(float* v, float enc,
                                             const StochasticBlock<float>& how) {
  QSTEP_UNROLL(16)
  for (int i = 0; i < 16; ++i) v[i] = scaled(v[i], enc, how.shrink);
  QSTEP_UNROLL(4)
  for (int i = 0; i < 4; ++i) round_four_by_hardware(v + 4 * i, how.words.w[i]);
}

template <class F>
QSTEP_HD_INLINE void round_block_stochastic(F* v, BitsOf<F> raw, F enc, F,
                                            const StochasticBlock<F>& how, CodesAlone) {
  if constexpr (kHasHardwareRounder<F>) {
    if (how.rounder == StochasticRounder::kHardware) return round_block_by_hardware(v, enc, how);
  }
  const bool tame = how.shrink == 1.0f && is_tame<ElementFormat::kE2m1>(raw, enc);
  QSTEP_UNROLL(16)
  for (int i = 0; i < 16; ++i) {
    if (tame) {
      v[i] = round_stochastic_e2m1_by<Range::kTame>(v[i] * enc, random_fraction(how.words, i));
    } else {
      v[i] = round_stochastic_e2m1(scaled(v[i], enc, how.shrink), random_byte(how.words, i));
    }
  }
}
template <class F>
QSTEP_HD_INLINE void round_block_stochastic(F* v, BitsOf<F> raw, F enc, F s,
                                            const StochasticBlock<F>& how, F* codes) {
  if constexpr (kHasHardwareRounder<F>) {
    if (how.rounder == StochasticRounder::kHardware) {
      round_block_by_hardware(v, enc, how);
      QSTEP_UNROLL(16)
      for (int i = 0; i < 16; ++i) {
        if (codes != nullptr) codes[i] = v[i];
        v[i] = v[i] * s;
      }
      return;
    }
  }
  if (codes == nullptr && how.shrink == 1.0f && is_tame<ElementFormat::kE2m1>(raw, enc)) {
    QSTEP_UNROLL(16)
    for (int i = 0; i < 16; ++i) {
      v[i] = round_stochastic_e2m1_by<Range::kTame>(v[i] * enc, random_fraction(how.words, i)) * s;
    }
    return;
  }
  QSTEP_UNROLL_DEVICE(16)
  for (int i = 0; i < 16; ++i) {
    const F q = round_stochastic_e2m1(scaled(v[i], enc, how.shrink), random_byte(how.words, i));
    if (codes != nullptr) codes[i] = q;
    v[i] = q * s;
  }
}

}  // namespace qstep::precision
