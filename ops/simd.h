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

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define QSTEP_AVX512 1
// GCC 12 takes the deliberately undefined registers inside its own intrinsics for a mistake (PR 105593).
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#define QSTEP_AVX512 0
#endif

namespace qstep::ops {

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
inline F32x16 select_nan(F32x16 x, F32x16 if_nan, F32x16 otherwise) {
  return {_mm512_mask_mov_ps(otherwise.v, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), if_nan.v)};
}

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
inline F32x16 exp2_integer(F32x16 n) {
  return each_lane([&](int i) {
    return std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23);
  });
}
inline F32x16 select_nan(F32x16 x, F32x16 if_nan, F32x16 otherwise) {
  return each_lane([&](int i) { return std::isnan(x.v[i]) ? if_nan.v[i] : otherwise.v[i]; });
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

// e^x within 2 ulp for x in [-87.3, 88.3]; below it falls to zero (results under 2^-126 are
// flushed), above it is infinity; NaN stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2, n split off in
// two parts (Cody and Waite), e^r by its Taylor polynomial of degree 7 (remainder below 2^-27).
inline F32x16 exp(F32x16 x) {
  const F32x16 clamped = min(max(x, broadcast(-88.0f)), broadcast(89.0f));
  const F32x16 n = round_to_integer(clamped * broadcast(1.44269504f));
  F32x16 r = fma(n, broadcast(-0.693145752f), clamped);
  r = fma(n, broadcast(-1.42860677e-6f), r);
  F32x16 p = broadcast(1.0f / 5040.0f);
  for (const float c :
       {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f}) {
    p = fma(p, r, broadcast(c));
  }
  return select_nan(x, x, p * exp2_integer(n));
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

}  // namespace qstep::ops
