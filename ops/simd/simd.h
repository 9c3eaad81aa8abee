// Sixteen floats at a time. One type with a body for AVX-512, one for AVX2, and loops for any other
// machine. All give the same bits: no operation depends on the width of the machine, and fused
// multiply-adds are written as such.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "precision/bf16.h"

// A test lowers this to compare the bodies on one machine.
#ifndef QSTEP_MAX_VECTOR_BITS
#define QSTEP_MAX_VECTOR_BITS 512
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && QSTEP_MAX_VECTOR_BITS >= 512
#define QSTEP_AVX512 1
#define QSTEP_SIMD_BODY simd_avx512
#include "ops/simd/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && QSTEP_MAX_VECTOR_BITS >= 256
#define QSTEP_AVX512 0
#define QSTEP_SIMD_BODY simd_avx2
#include "ops/simd/simd_avx2.h"
#else
#define QSTEP_AVX512 0
#define QSTEP_SIMD_BODY simd_generic
#include "ops/simd/simd_generic.h"
#endif

namespace qstep::ops {
inline namespace QSTEP_SIMD_BODY {

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
