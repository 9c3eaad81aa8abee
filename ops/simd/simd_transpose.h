// 16 x 16 tiles between memory, row-major, and sixteen registers that hold a column each.
#pragma once

#include "ops/simd/simd_lanes.h"

namespace qstep::ops {
inline namespace QSTEP_SIMD_BODY {

// v[c] lane r = p[r ld + c]
inline void load_transposed(F32x16* v, const float* p, int64_t ld) {
  for (int r = 0; r < 16; ++r) v[r] = load(p + r * ld);
  transpose(v);
}

#if QSTEP_AVX512

// In each quarter of the registers: word i of register j goes to word j of register i.
inline void transpose_words(__m512i* z) {
  __m512i a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm512_unpacklo_epi16(z[i], z[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi16(z[i], z[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi32(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi32(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    z[2 * i] = _mm512_unpacklo_epi64(b[i], b[i + 4]);
    z[2 * i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 4]);
  }
}

// Quarters of a register, in turn: columns 0-7 and 8-15 of rows 0-7, the same of rows 8-15.
inline void load_transposed(F32x16* v, const Bf16* p, int64_t ld) {
  const auto row = [&](int r) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + r * ld));
  };
  __m512i z[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    z[i] = _mm512_inserti64x4(_mm512_castsi256_si512(row(i)), row(i + 8), 1);
  }
  transpose_words(z);
  // Words 0-7 and 16-23 (columns 0-7), or those behind them, become the upper halves of floats.
  alignas(64) static constexpr uint16_t kFirst[32] = {0, 0,  0, 1,  0, 2,  0,  3,  0,  4, 0,
                                                      5, 0,  6, 0,  7, 0,  16, 0,  17, 0, 18,
                                                      0, 19, 0, 20, 0, 21, 0,  22, 0,  23};
  const __m512i first = _mm512_load_si512(kFirst);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(8));
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    v[i].v = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, first, z[i]));
    v[i + 8].v = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, second, z[i]));
  }
}

// Rows r and r + 8 of the tile, sixteen words each, in z[r].
inline void transpose_to_words(__m512i* z, const F32x16* v) {
  // The upper halves of v[i] and v[i + 8], quarters as above.
  alignas(64) static constexpr uint16_t kWords[32] = {1,  3,  5,  7,  9,  11, 13, 15, 33, 35, 37,
                                                      39, 41, 43, 45, 47, 17, 19, 21, 23, 25, 27,
                                                      29, 31, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i words = _mm512_load_si512(kWords);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    z[i] = _mm512_permutex2var_epi16(_mm512_castps_si512(v[i].v), words,
                                     _mm512_castps_si512(v[i + 8].v));
  }
  transpose_words(z);
}

// p[r ld + c] = v[c] lane r, whose values are BF16 numbers. Clobbers v.
inline void store_transposed(Bf16* p, int64_t ld, F32x16* v) {
  __m512i z[8];
  transpose_to_words(z, v);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + i * ld), _mm512_castsi512_si256(z[i]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + (i + 8) * ld),
                        _mm512_extracti64x4_epi64(z[i], 1));
  }
}

// Whole cache lines; with kStream past the caches (p and ld are multiples of 64 bytes then).
template <bool kStream>
inline void store_line(Bf16* p, __m512i words) {
  auto* const line = reinterpret_cast<__m512i*>(p);
  if constexpr (kStream) {
    _mm512_stream_si512(line, words);
  } else {
    _mm512_storeu_si512(line, words);
  }
}

// Two tiles side by side, 32 columns.
template <bool kStream>
inline void store_transposed_pair(Bf16* p, int64_t ld, F32x16* v) {
  __m512i a[8], b[8];
  transpose_to_words(a, v);
  transpose_to_words(b, v + 16);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    store_line<kStream>(p + i * ld, _mm512_inserti64x4(a[i], _mm512_castsi512_si256(b[i]), 1));
    store_line<kStream>(p + (i + 8) * ld, _mm512_shuffle_i64x2(a[i], b[i], 0xEE));
  }
}

// 32 numbers of BF16 from two registers.
template <bool kStream>
inline void store_exact_pair(Bf16* p, F32x16 first, F32x16 second) {
  alignas(64) static constexpr uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                      23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                      45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  store_line<kStream>(
      p, _mm512_permutex2var_epi16(_mm512_castps_si512(first.v), _mm512_load_si512(kUpper),
                                   _mm512_castps_si512(second.v)));
}

// Orders streamed stores before what follows.
inline void end_stream() { _mm_sfence(); }

#else

template <bool>
inline void store_exact_pair(Bf16* p, F32x16 first, F32x16 second) {
  store_exact(p, first);
  store_exact(p + 16, second);
}
inline void end_stream() {}
inline void store_transposed(Bf16* p, int64_t ld, F32x16* v);
template <bool>
inline void store_transposed_pair(Bf16* p, int64_t ld, F32x16* v) {
  store_transposed(p, ld, v);
  store_transposed(p + 16, ld, v + 16);
}

inline void load_transposed(F32x16* v, const Bf16* p, int64_t ld) {
  for (int r = 0; r < 16; ++r) v[r] = load(p + r * ld);
  transpose(v);
}
inline void store_transposed(Bf16* p, int64_t ld, F32x16* v) {
  transpose(v);
  for (int r = 0; r < 16; ++r) store_exact(p + r * ld, v[r]);
}

#endif

}  // namespace QSTEP_SIMD_BODY
}  // namespace qstep::ops
