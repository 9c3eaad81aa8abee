// The Hadamard transform of a unit, in groups of the recipe's size.
#pragma once

#include "precision/bf16.h"
#include "precision/hadamard.h"
#include "precision/unit.h"

namespace qstep::precision {

// The transform, rounded to BF16.
template <int kSize, class F>
QSTEP_HD_INLINE void hadamard_group(F* v, const SignBits& signs) {
  hadamard_unscaled<kSize>(v, signs);
#ifdef __CUDA_ARCH__
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) v[i] = round_to_bf16(v[i] * all<F>(hadamard_scale(kSize)));
#else
  BitsOf<F> raw = all_bits<F>(0);
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) {
    v[i] = v[i] * all<F>(hadamard_scale(kSize));
    raw = max_bits(raw, bits(v[i]) & all_bits<F>(0x7FFFFFFFu));
  }
  if (any(less_bits(all_bits<F>(0x7F800000u), raw))) {
    QSTEP_UNROLL_DEVICE(kSize)
    for (int i = 0; i < kSize; ++i) v[i] = round_to_bf16(v[i]);
    return;
  }
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) v[i] = round_number_to_bf16(v[i]);
#endif
}

template <int kUnit, class F>
QSTEP_HD_INLINE void hadamard_unit(const UnitPlan& plan, F* v) {
  const int d = plan.spec.hadamard;
  if (d == 0) return;
  QSTEP_UNROLL_ARRAY(kUnit, 8)
  for (int first = 0; first < kUnit; first += 16) {
    if (d == 16) hadamard_group<16>(v + first, plan.signs);
    if constexpr (kUnit >= 32) {
      if (d == 32 && first % 32 == 0) hadamard_group<32>(v + first, plan.signs);
    }
    if constexpr (kUnit >= 64) {
      if (d == 64 && first % 64 == 0) hadamard_group<64>(v + first, plan.signs);
    }
    if constexpr (kUnit >= 128) {
      if (d == 128 && first == 0) hadamard_group<128>(v, plan.signs);
    }
  }
}

}  // namespace qstep::precision
