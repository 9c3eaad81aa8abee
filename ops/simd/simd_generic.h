// ops/simd/simd.h for any machine: loops of sixteen. Included by it alone; ops/simd/simd_avx512.h
// says what each operation does.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "precision/bf16.h"

namespace qstep::ops {

using precision::Bf16;

inline constexpr int64_t kLanes = 16;

inline namespace simd_generic {

struct F32x16 {
  alignas(64) float v[kLanes];
};

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

}  // namespace simd_generic
}  // namespace qstep::ops
