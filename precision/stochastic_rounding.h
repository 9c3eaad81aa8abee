// Stochastic rounding: up with the probability of the fraction, so that the mean is the value.
#pragma once

#include "precision/element_format.h"

namespace qstep::precision {

// To E2M1 with 8 random bits (numerics 4.2; the software form of Transformer Engine's ptx.cuh).
// Resolution 1/256 of a step: the mean is low in magnitude by step/512. Saturates; a value of the
// grid never moves; NaN is +6.
//
// t = |x| + byte/256 * step(|x|) in one rounding, then down to the grid of t: one mantissa bit is
// kept above 1, steps of 1/2 below. fraction = byte 2^-9, as step is half the binade.
//
// kTame: |x| < 7 and not NaN, which a quantizer knows of a whole block.
enum class Range : bool { kAny, kTame };

template <Range kRange = Range::kAny, class F>
QSTEP_HD inline F round_stochastic_e2m1_by(F x, F fraction) {
  F a = magnitude(x);
  if constexpr (kRange == Range::kAny) a = min(a, all<F>(8.0f));  // beyond 6 all saturate
  const F one = all<F>(1.0f), half = all<F>(0.5f);
  const F binade = from_bits(max_bits(bits(a) & all_bits<F>(0x7F800000u), bits(one)));
  const F t = fma(fraction, binade, a);
  const F above = from_bits(bits(t) & all_bits<F>(0xFFC00000u));
  const F below = select(less(t, half), all<F>(0.0f), half);
  const F rounded = with_sign(min(select(less(t, one), below, above), all<F>(6.0f)), x);
  if constexpr (kRange == Range::kTame) return rounded;
  return select(is_nan(x), all<F>(6.0f), rounded);
}

template <class F>
QSTEP_HD inline F round_stochastic_e2m1(F x, BitsOf<F> random_byte) {
  return round_stochastic_e2m1_by(x, to_number(random_byte) * all<F>(0x1p-9f));
}

// To E4M3 with 24 random bits, for scales that are not negative (numerics 7.8): up when
// (v - lower) / step > random / 2^24. Saturates.
template <class F>
QSTEP_HD inline F round_stochastic_e4m3(F v, BitsOf<F> random_word) {
  constexpr ElementTraits t = kElement<ElementFormat::kE4m3>;
  const F clamped = min(v, all<F>(t.max));
  const F lower = round_toward_zero<ElementFormat::kE4m3>(clamped);
  const F binade =
      from_bits(max_bits(bits(lower) & all_bits<F>(0x7F800000u), bits(all<F>(t.min_normal))));
  const F step = binade * all<F>(0x1p-3f);
  const F uniform = to_number(shift_right(random_word, 8)) * all<F>(0x1p-24f);
  return select(less(uniform * step, clamped - lower), lower + step, lower);
}

}  // namespace qstep::precision
