// Sixteen floats at a time. One type, two bodies: AVX-512 intrinsics, or loops of sixteen that
// every compiler turns into the vectors it has. Both give the same bits: no operation here depends
// on the width of the machine, and fused multiply-adds are written as such.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "precision/bf16.h"

// QSTEP_GENERIC_SIMD picks the loops on any machine: a test compares the two bodies.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && !defined(QSTEP_GENERIC_SIMD)
#define QSTEP_AVX512 1
#define QSTEP_SIMD_BODY simd_avx512
// GCC 12 takes the deliberately undefined registers inside its own intrinsics for a mistake (PR
// 105593).
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#define QSTEP_AVX512 0
#define QSTEP_SIMD_BODY simd_generic
#endif

namespace qstep::ops {
inline namespace QSTEP_SIMD_BODY {

using precision::Bf16;

inline constexpr int64_t kLanes = 16;

struct F32x16 {
#if QSTEP_AVX512
  __m512 v;
#else
  alignas(64) float v[kLanes];
#endif
};

#if QSTEP_AVX512

inline F32x16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 widen(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline F32x16 load(const Bf16* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
// The first n < 16 elements, zero behind them.
inline F32x16 load_part(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
inline F32x16 load_part(const Bf16* p, int64_t n) {
  return widen(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
// precision::to_bf16 on each lane.
inline __m256i narrow(F32x16 x) {
  const __m512i bits = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  rounded = _mm512_srli_epi32(rounded, 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7FFF));
  return _mm512_cvtepi32_epi16(rounded);
}
inline void store(float* p, F32x16 x) { _mm512_storeu_ps(p, x.v); }
inline void store(Bf16* p, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x));
}
inline void store_part(float* p, F32x16 x, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), x.v);
}
inline void store_part(Bf16* p, F32x16 x, int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(x));
}
inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
// a * b + c with one rounding.
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// The larger; b where either is NaN.
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline F32x16 round_to_integer(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// x in the first n <= 16 lanes, zero behind them.
inline F32x16 keep_first(F32x16 x, int64_t n) { return {_mm512_maskz_mov_ps(first_lanes(n), x.v)}; }
// 2^n for integral n in [-127, 128]: n = 128 gives infinity, n = -127 gives zero.
inline F32x16 exp2_integer(F32x16 n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
// p 2^n, rounded once, for |p| in [1/2, 2] and integral n in [-250, 250]. A NaN p stays one.
inline F32x16 scale_by_power(F32x16 p, F32x16 n) { return {_mm512_scalef_ps(p.v, n.v)}; }

#else

template <class F>
inline F32x16 each_lane(F&& f) {
  F32x16 r;
#pragma omp simd
  for (int i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}
inline F32x16 broadcast(float x) {
  return each_lane([&](int) { return x; });
}
template <class T>
inline F32x16 load(const T* p) {
  return each_lane([&](int i) { return precision::to_float(p[i]); });
}
template <class T>
inline F32x16 load_part(const T* p, int64_t n) {
  F32x16 r = broadcast(0.0f);
  for (int64_t i = 0; i < n; ++i) r.v[i] = precision::to_float(p[i]);
  return r;
}
inline void store_part(float* p, F32x16 x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.v[i];
}
inline void store_part(Bf16* p, F32x16 x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = precision::to_bf16(x.v[i]);
}
inline void store(float* p, F32x16 x) { store_part(p, x, kLanes); }
inline void store(Bf16* p, F32x16 x) { store_part(p, x, kLanes); }
inline F32x16 operator+(F32x16 a, F32x16 b) {
  return each_lane([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return each_lane([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return each_lane([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return each_lane([&](int i) { return a.v[i] / b.v[i]; });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each_lane([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return each_lane([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return each_lane([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 sqrt(F32x16 a) {
  return each_lane([&](int i) { return std::sqrt(a.v[i]); });
}
inline F32x16 round_to_integer(F32x16 a) {
  return each_lane([&](int i) { return std::nearbyint(a.v[i]); });
}
inline F32x16 keep_first(F32x16 x, int64_t n) {
  return each_lane([&](int i) { return i < n ? x.v[i] : 0.0f; });
}
// The bits of 2^23 + 2^22 + n end in the integer n: no conversion, which would be undefined for a
// NaN.
inline int32_t integer_of(float n) {
  constexpr float kMagic = 0x1.8p23f;
  return static_cast<int32_t>(std::bit_cast<uint32_t>(n + kMagic) -
                              std::bit_cast<uint32_t>(kMagic));
}
inline float power_of_two(int32_t n) {
  return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23);
}
inline F32x16 exp2_integer(F32x16 n) {
  return each_lane([&](int i) { return power_of_two(integer_of(n.v[i])); });
}
inline F32x16 scale_by_power(F32x16 p, F32x16 n) {
  return each_lane([&](int i) {
    const int32_t whole = integer_of(n.v[i]), half = whole / 2;  // the first product is exact
    return p.v[i] * power_of_two(half) * power_of_two(whole - half);
  });
}

#endif

// Sum and maximum over the lanes, in one fixed order: halves folded onto each other,
// 8 + 8, 4 + 4, ...
template <class F>
inline float fold_lanes(F32x16 x, F&& f) {
  alignas(64) float lane[kLanes];
  store(lane, x);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lane[i] = f(lane[i], lane[i + half]);
  }
  return lane[0];
}
inline float reduce_add(F32x16 x) {
  return fold_lanes(x, [](float a, float b) { return a + b; });
}
inline float reduce_max(F32x16 x) {
  return fold_lanes(x, [](float a, float b) { return a > b ? a : b; });
}

// e^x within 1 ulp, subnormal results included; infinity above 88.73, zero below -104, NaN stays
// NaN. x = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts (Cody and Waite 1980); e^r by the
// polynomial 1 + r + r^2 q(r) of degree 6 with the least largest relative error, 2^-28.2.
inline F32x16 exp(F32x16 x) {
  const F32x16 clamped = min(broadcast(89.0f), max(broadcast(-105.0f), x));  // lets a NaN through
  const F32x16 n = round_to_integer(clamped * broadcast(1.44269504f));
  F32x16 r = fma(n, broadcast(-0x1.62e4p-1f), clamped);
  r = fma(n, broadcast(-0x1.7f7d1cp-20f), r);
  F32x16 p = broadcast(0x1.6a23c8p-10f);
  for (const float c :
       {0x1.123a2p-7f, 0x1.5558f2p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f, 1.0f, 1.0f}) {
    p = fma(p, r, broadcast(c));
  }
  return scale_by_power(p, n);
}

// 1 / (1 + e^-x) and tanh(x) = 2 sigmoid(2x) - 1: absolute error below 2^-22.
inline F32x16 sigmoid(F32x16 x) {
  return broadcast(1.0f) / (broadcast(1.0f) + exp(broadcast(0.0f) - x));
}
inline F32x16 tanh(F32x16 x) {
  return broadcast(2.0f) * sigmoid(broadcast(2.0f) * x) - broadcast(1.0f);
}

// Calls f(offset, n_lanes) for consecutive groups of sixteen; the last may be shorter. With load_n
// and store_n, a loop over a row is written once for full and ragged groups.
template <class F>
inline void for_each_group(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
}
// The sum of a row. f(sum, offset, n_lanes) returns `sum` plus the terms of one group; lanes past
// n_lanes must add zero. Four running sums hide the latency of the additions; their order is part
// of the result.
template <class F>
inline float sum_groups(int64_t n, F&& f) {
  F32x16 s0 = broadcast(0.0f), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = f(s0, i, kLanes);
    s1 = f(s1, i + kLanes, kLanes);
    s2 = f(s2, i + 2 * kLanes, kLanes);
    s3 = f(s3, i + 3 * kLanes, kLanes);
  }
  for (; i < n; i += kLanes) s0 = f(s0, i, std::min(kLanes, n - i));
  return reduce_add((s0 + s1) + (s2 + s3));
}

template <class T>
inline F32x16 load_n(const T* p, int64_t n) {
  return n == kLanes ? load(p) : load_part(p, n);
}
template <class T>
inline void store_n(T* p, F32x16 x, int64_t n) {
  if (n == kLanes) {
    store(p, x);
  } else {
    store_part(p, x, n);
  }
}

}  // namespace QSTEP_SIMD_BODY
}  // namespace qstep::ops
