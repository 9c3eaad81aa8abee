// Stochastic rounding: up with the probability of the fraction, so that the mean is the value.
#pragma once

#include <type_traits>

#include "precision/element_format.h"

// In code for compute capabilities 10.0 and 10.3 and these alone: sm_100a, sm_103a (PTX ISA, cvt).
#if defined(__CUDA_ARCH_FEAT_SM100_ALL) || defined(__CUDA_ARCH_FEAT_SM103_ALL)
#define QSTEP_HAS_CVT_RS 1
#endif

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

// Whether this code has the GPU's stochastic rounding to E2M1, cvt.rs. The host has a model of it,
// one float at a time.
#if !defined(__CUDA_ARCH__) || defined(QSTEP_HAS_CVT_RS)
template <class F>
inline constexpr bool kHasHardwareRounder = std::is_same_v<F, float>;
#else
template <class F>
inline constexpr bool kHasHardwareRounder = false;
#endif

// Four numbers to E2M1 by that instruction and one random word: rounded away from zero where the
// sum of random bits and the mantissa bits that are cut off carries. Saturates; NaN is +6.
//
// Of the word, bytes 0 and 2 belong to the first two numbers and bytes 1 and 3 to the others. Which
// of the two is whose, and that the carry rounds as round_stochastic_e2m1 does, PTX ISA leaves
// open. The model takes the bytes in order; tests/gpu/precision_device_test.cu holds the
// instruction against what is said.
QSTEP_HD inline void model_round_four(float* v, uint32_t word) {
  constexpr int kByteOf[4] = {0, 2, 1, 3};
  QSTEP_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    v[i] = round_stochastic_e2m1(v[i], (word >> (8 * kByteOf[i])) & 0xFFu);
  }
}
QSTEP_HD_INLINE void round_four_by_hardware(float* v, uint32_t word) {
#if defined(QSTEP_HAS_CVT_RS)
  // The last operand in front: codes of four bits, the first in the lowest. Back to numbers
  // exactly, by way of FP16.
  uint32_t low, high;
  asm("{ .reg .b16 codes;\n\t"
      ".reg .b8 low, high;\n\t"
      "cvt.rs.satfinite.e2m1x4.f32 codes, {%5, %4, %3, %2}, %6;\n\t"
      "mov.b16 {low, high}, codes;\n\t"
      "cvt.rn.f16x2.e2m1x2 %0, low;\n\t"
      "cvt.rn.f16x2.e2m1x2 %1, high; }"
      : "=r"(low), "=r"(high)
      : "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(word));
  QSTEP_UNROLL(2)
  for (int i = 0; i < 2; ++i) {
    asm("{ .reg .b16 low, high;\n\t"
        "mov.b32 {low, high}, %2;\n\t"
        "cvt.f32.f16 %0, low;\n\t"
        "cvt.f32.f16 %1, high; }"
        : "=f"(v[2 * i]), "=f"(v[2 * i + 1])
        : "r"(i == 0 ? low : high));
  }
#elif !defined(__CUDA_ARCH__)
  model_round_four(v, word);
#endif
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
