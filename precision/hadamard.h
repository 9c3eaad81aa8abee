// The random Hadamard transform of D consecutive values (numerics 4.4):
//   v'_j = 1/sqrt(D) sum_i s_i v_i (-1)^popcount(i & j)
// in FP32 butterflies, h = 1, 2, 4, ..., D/2, scaled at the end. The caller rounds to BF16. Its own
// inverse up to the signs; applied to both operands of a GEMM along k it cancels.
#pragma once

#include "precision/random_bits.h"

namespace qstep::precision {

constexpr float hadamard_scale(int d) {
  return d == 16 ? 0.25f : d == 32 ? 0x1.6a09e6p-3f : d == 64 ? 0.125f : 0x1.6a09e6p-4f;
}

// s_i v_i, then the butterflies; not yet scaled.
template <int kSize, class F>
QSTEP_HD inline void hadamard_unscaled(F* v, const SignBits& signs) {
  for (int i = 0; i < kSize; ++i) {
    const uint32_t flip = signs.minus(i) ? 0x80000000u : 0u;
    v[i] = from_bits(bits(v[i]) ^ all_bits<F>(flip));
  }
#pragma GCC unroll 8
  for (int h = 1; h < kSize; h *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kSize; i += 2 * h) {
#pragma GCC unroll 8
      for (int j = i; j < i + h; ++j) {
        const F a = v[j], b = v[j + h];
        v[j] = a + b;
        v[j + h] = a - b;
      }
    }
  }
}

// To BF16 and back, nearest even.
template <class F>
QSTEP_HD inline F round_to_bf16(F x) {
  using U = BitsOf<F>;
  const U u = bits(x);
  const U odd = shift_right(u, 16) & all_bits<F>(1);
  const U rounded = (u + (all_bits<F>(0x7FFFu) + odd)) & all_bits<F>(0xFFFF0000u);
  return select(is_nan(x), from_bits(all_bits<F>(0x7FFF0000u)), from_bits(rounded));
}

}  // namespace qstep::precision
