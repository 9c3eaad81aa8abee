// ops/simd/simd.h for machines with AVX2 and FMA: two registers. Included by it alone;
// ops/simd/simd_avx512.h says what each operation does.
#pragma once

// GCC 12 takes the deliberately undefined registers inside its own intrinsics for a mistake (PR
// 105593).
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>
#include <cstring>

#include "precision/bf16.h"

namespace qstep::ops {

using precision::Bf16;

inline constexpr int64_t kLanes = 16;

inline namespace simd_avx2 {

struct F32x16 {
  __m256 lo, hi;
};

inline F32x16 broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline __m256 widen(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline F32x16 load(const Bf16* p) {
  const __m128i* const words = reinterpret_cast<const __m128i*>(p);
  return {widen(_mm_loadu_si128(words)), widen(_mm_loadu_si128(words + 1))};
}
// All bits of lane i where i < n.
inline __m256i first_lanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
inline F32x16 load_part(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, first_lanes(n)), _mm256_maskload_ps(p + 8, first_lanes(n - 8))};
}
inline F32x16 load_part(const Bf16* p, int64_t n) {
  Bf16 lanes[kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(Bf16));
  return load(lanes);
}
// precision::to_bf16 on each lane, in the low halves of 32 bits.
inline __m256i round_to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), _mm256_set1_epi32(0x7FFF), nan);
}
inline __m256i narrow(F32x16 x) {
  // Packing works within halves of 128 bits; the permutation puts the four quarters in order.
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(round_to_bf16(x.lo), round_to_bf16(x.hi)),
                                  0b11011000);
}
inline void store(float* p, F32x16 x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline void store(Bf16* p, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x));
}
inline void store_part(float* p, F32x16 x, int64_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), x.lo);
  _mm256_maskstore_ps(p + 8, first_lanes(n - 8), x.hi);
}
inline void store_part(Bf16* p, F32x16 x, int64_t n) {
  Bf16 lanes[kLanes];
  store(lanes, x);
  std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(Bf16));
}
inline F32x16 operator+(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline F32x16 sqrt(F32x16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline F32x16 round_to_integer(F32x16 a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
inline F32x16 keep_first(F32x16 x, int64_t n) {
  return {_mm256_and_ps(x.lo, _mm256_castsi256_ps(first_lanes(n))),
          _mm256_and_ps(x.hi, _mm256_castsi256_ps(first_lanes(n - 8)))};
}
inline __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
inline F32x16 exp2_integer(F32x16 n) {
  return {power_of_two(_mm256_cvtps_epi32(n.lo)), power_of_two(_mm256_cvtps_epi32(n.hi))};
}
// In two products, the first of which is exact.
inline __m256 scale_by_power(__m256 p, __m256i n) {
  const __m256i half = _mm256_srai_epi32(n, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)),
                       power_of_two(_mm256_sub_epi32(n, half)));
}
inline F32x16 scale_by_power(F32x16 p, F32x16 n) {
  return {scale_by_power(p.lo, _mm256_cvtps_epi32(n.lo)),
          scale_by_power(p.hi, _mm256_cvtps_epi32(n.hi))};
}

}  // namespace simd_avx2
}  // namespace qstep::ops
