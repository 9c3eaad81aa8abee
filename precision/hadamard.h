// The random Hadamard transform of D consecutive values (numerics 4.4):
//   v'_j = 1/sqrt(D) sum_i s_i v_i (-1)^popcount(i & j)
// in FP32 butterflies, h = 1, 2, 4, ..., D/2, scaled at the end. The caller rounds to BF16. Its own
// inverse up to the signs; applied to both operands of a GEMM along k it cancels.
#pragma once

#include "precision/bf16.h"
#include "precision/random_bits.h"

namespace qstep::precision {

constexpr float hadamard_scale(int d) {
  return d == 16 ? 0.25f : d == 32 ? 0x1.6a09e6p-3f : d == 64 ? 0.125f : 0x1.6a09e6p-4f;
}

// The butterflies h = kFrom, 2 kFrom, ... below kUpTo, each h at compile time: on a GPU the indices
// of registers.
template <int kSize, int kFrom, int kUpTo, class F>
QSTEP_HD_INLINE void hadamard_butterflies(F* v) {
  if constexpr (kFrom < kUpTo) {
    QSTEP_UNROLL_ARRAY(kSize, 8)
    for (int i = 0; i < kSize; i += 2 * kFrom) {
      QSTEP_UNROLL_ARRAY(kSize, 8)
      for (int j = i; j < i + kFrom; ++j) {
        const F a = v[j], b = v[j + kFrom];
        v[j] = a + b;
        v[j + kFrom] = a - b;
      }
    }
    hadamard_butterflies<kSize, 2 * kFrom, kUpTo>(v);
  }
}

// s_i v_i, then the butterflies below h = kUpTo; not yet scaled.
template <int kSize, int kUpTo = kSize, class F>
QSTEP_HD_INLINE void hadamard_unscaled(F* v, const SignBits& signs) {
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) {
    const uint32_t flip = signs.minus(i) ? 0x80000000u : 0u;
    v[i] = from_bits(bits(v[i]) ^ all_bits<F>(flip));
  }
  hadamard_butterflies<kSize, 1, kUpTo>(v);
}

// The largest bits of |unscaled v'_j|. The last butterflies are not carried out: of |a + b| and
// |a - b|, the larger is |a| + |b|, rounding included.
template <int kSize, class F>
QSTEP_HD_INLINE BitsOf<F> hadamard_largest(F* v, const SignBits& signs) {
  hadamard_unscaled<kSize, kSize / 2>(v, signs);
  BitsOf<F> largest = all_bits<F>(0);
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize / 2; ++i) {
    largest = max_bits(
        largest, bits(magnitude(v[i]) + magnitude(v[i + kSize / 2])) & all_bits<F>(0x7FFFFFFFu));
  }
  return largest;
}

// To BF16 and back, nearest even. Infinity stays; for what is not NaN.
template <class F>
QSTEP_HD inline F round_number_to_bf16(F x) {
  using U = BitsOf<F>;
  const U u = bits(x);
  const U odd = shift_right(u, 16) & all_bits<F>(1);
  return from_bits((u + (all_bits<F>(0x7FFFu) + odd)) & all_bits<F>(0xFFFF0000u));
}
template <class F>
QSTEP_HD inline F round_to_bf16(F x) {
#ifdef __CUDA_ARCH__
  return to_float(to_bf16(x));  // an instruction, NaN included
#else
  return select(is_nan(x), from_bits(all_bits<F>(0x7FFF0000u)), round_number_to_bf16(x));
#endif
}

}  // namespace qstep::precision
