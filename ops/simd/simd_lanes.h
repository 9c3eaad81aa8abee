// The functions of precision/lanes.h on sixteen floats: the CPU's quantizers are the templates of
// precision/ at F = F32x16. Same bits as at F = float, in every body.
#pragma once

#include "ops/simd/simd.h"
#include "precision/lanes.h"

namespace qstep::ops {
inline namespace QSTEP_SIMD_BODY {

#if QSTEP_AVX512

struct U32x16 {
  __m512i v;
};
struct Mask16 {
  __mmask16 v;
};

inline U32x16 broadcast_bits(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
inline U32x16 load_bits(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_bits(uint32_t* p, U32x16 x) { _mm512_storeu_si512(p, x.v); }
inline U32x16 operator+(U32x16 a, U32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline U32x16 operator-(U32x16 a, U32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline U32x16 operator&(U32x16 a, U32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline U32x16 operator|(U32x16 a, U32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }
inline U32x16 operator^(U32x16 a, U32x16 b) { return {_mm512_xor_si512(a.v, b.v)}; }
inline U32x16 max_bits(U32x16 a, U32x16 b) { return {_mm512_max_epu32(a.v, b.v)}; }
// As operators of the vector type: a count known at compile time becomes part of the instruction.
inline U32x16 shift_left(U32x16 x, int n) {
  return {reinterpret_cast<__m512i>(reinterpret_cast<__v16su>(x.v) << n)};
}
inline U32x16 shift_right(U32x16 x, int n) {
  return {reinterpret_cast<__m512i>(reinterpret_cast<__v16su>(x.v) >> n)};
}
inline U32x16 multiply_low(U32x16 a, U32x16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline U32x16 multiply_high(U32x16 a, U32x16 b) {
  const __m512i even = _mm512_mul_epu32(a.v, b.v);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
  return {_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd)};
}
inline F32x16 to_number(U32x16 x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline U32x16 bits(F32x16 x) { return {_mm512_castps_si512(x.v)}; }
inline F32x16 from_bits(U32x16 x) { return {_mm512_castsi512_ps(x.v)}; }
inline F32x16 select(Mask16 m, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(m.v, no.v, yes.v)};
}
inline U32x16 select(Mask16 m, U32x16 yes, U32x16 no) {
  return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)};
}
inline Mask16 less(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask16 less_equal(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline Mask16 equal(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask16 is_nan(F32x16 a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
inline Mask16 equal_bits(U32x16 a, U32x16 b) { return {_mm512_cmpeq_epu32_mask(a.v, b.v)}; }
inline Mask16 less_bits(U32x16 a, U32x16 b) { return {_mm512_cmplt_epu32_mask(a.v, b.v)}; }
inline bool any(Mask16 m) { return m.v != 0; }
inline int count(Mask16 m) { return __builtin_popcount(m.v); }
inline F32x16 with_sign(F32x16 x, F32x16 y) {
  // Bit by bit: mask ? y : x.
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0x80000000u));
  return {_mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(mask, _mm512_castps_si512(y.v), _mm512_castps_si512(x.v), 0xCA))};
}

inline uint32_t largest_lane(U32x16 x) { return _mm512_reduce_max_epu32(x.v); }

// Row i becomes column i.
inline void transpose(F32x16* r) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m512 u[16];
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xEE);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xDD);
    const __m512 c = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xDD);
    r[i].v = _mm512_shuffle_f32x4(a, c, 0x88);
    r[i + 4].v = _mm512_shuffle_f32x4(b, d, 0x88);
    r[i + 8].v = _mm512_shuffle_f32x4(a, c, 0xDD);
    r[i + 12].v = _mm512_shuffle_f32x4(b, d, 0xDD);
  }
}

// The upper halves: to BF16 where the value is one already.
inline void store_exact(Bf16* p, F32x16 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(x.v), 16)));
}

#else

struct U32x16 {
  alignas(64) uint32_t v[kLanes];
};
struct Mask16 {
  alignas(64) uint32_t v[kLanes];  // all ones or zero
};

template <class F>
inline U32x16 each_bits(F&& f) {
  U32x16 r;
#pragma omp simd
  for (int i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}
template <class F>
inline Mask16 each_mask(F&& f) {
  Mask16 r;
#pragma omp simd
  for (int i = 0; i < kLanes; ++i) r.v[i] = f(i) ? ~0u : 0u;
  return r;
}
// The lanes of x as an array of floats.
struct FloatLanes {
  alignas(64) float v[kLanes];
  explicit FloatLanes(F32x16 x) { store(v, x); }
};

inline U32x16 broadcast_bits(uint32_t x) {
  return each_bits([&](int) { return x; });
}
inline U32x16 load_bits(const uint32_t* p) {
  return each_bits([&](int i) { return p[i]; });
}
inline void store_bits(uint32_t* p, U32x16 x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline U32x16 operator+(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] + b.v[i]; });
}
inline U32x16 operator-(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] - b.v[i]; });
}
inline U32x16 operator&(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] & b.v[i]; });
}
inline U32x16 operator|(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] | b.v[i]; });
}
inline U32x16 operator^(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] ^ b.v[i]; });
}
inline U32x16 max_bits(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline U32x16 shift_left(U32x16 x, int n) {
  return each_bits([&](int i) { return x.v[i] << n; });
}
inline U32x16 shift_right(U32x16 x, int n) {
  return each_bits([&](int i) { return x.v[i] >> n; });
}
inline U32x16 multiply_low(U32x16 a, U32x16 b) {
  return each_bits([&](int i) { return a.v[i] * b.v[i]; });
}
inline U32x16 multiply_high(U32x16 a, U32x16 b) {
  return each_bits(
      [&](int i) { return static_cast<uint32_t>((static_cast<uint64_t>(a.v[i]) * b.v[i]) >> 32); });
}
inline F32x16 to_number(U32x16 x) {
  alignas(64) float r[kLanes];
  for (int i = 0; i < kLanes; ++i) r[i] = static_cast<float>(static_cast<int32_t>(x.v[i]));
  return load(r);
}
inline U32x16 bits(F32x16 x) {
  alignas(64) float lanes[kLanes];
  store(lanes, x);
  U32x16 r;
  std::memcpy(r.v, lanes, sizeof(lanes));
  return r;
}
inline F32x16 from_bits(U32x16 x) {
  alignas(64) float lanes[kLanes];
  std::memcpy(lanes, x.v, sizeof(lanes));
  return load(lanes);
}
inline U32x16 select(Mask16 m, U32x16 yes, U32x16 no) {
  return each_bits([&](int i) { return (m.v[i] & yes.v[i]) | (~m.v[i] & no.v[i]); });
}
inline F32x16 select(Mask16 m, F32x16 yes, F32x16 no) {
  return from_bits(select(m, bits(yes), bits(no)));
}
inline Mask16 less(F32x16 a, F32x16 b) {
  const FloatLanes x(a), y(b);
  return each_mask([&](int i) { return x.v[i] < y.v[i]; });
}
inline Mask16 less_equal(F32x16 a, F32x16 b) {
  const FloatLanes x(a), y(b);
  return each_mask([&](int i) { return x.v[i] <= y.v[i]; });
}
inline Mask16 equal(F32x16 a, F32x16 b) {
  const FloatLanes x(a), y(b);
  return each_mask([&](int i) { return x.v[i] == y.v[i]; });
}
inline Mask16 is_nan(F32x16 a) {
  const FloatLanes x(a);
  return each_mask([&](int i) { return x.v[i] != x.v[i]; });
}
inline Mask16 equal_bits(U32x16 a, U32x16 b) {
  return each_mask([&](int i) { return a.v[i] == b.v[i]; });
}
inline Mask16 less_bits(U32x16 a, U32x16 b) {
  return each_mask([&](int i) { return a.v[i] < b.v[i]; });
}
inline bool any(Mask16 m) {
  uint32_t found = 0;
  for (int i = 0; i < kLanes; ++i) found |= m.v[i];
  return found != 0;
}
inline int count(Mask16 m) {
  uint32_t n = 0;
  for (int i = 0; i < kLanes; ++i) n += m.v[i] & 1u;
  return static_cast<int>(n);
}
inline uint32_t largest_lane(U32x16 x) { return *std::max_element(x.v, x.v + kLanes); }
inline F32x16 with_sign(F32x16 x, F32x16 y) {
  return from_bits((bits(x) & broadcast_bits(0x7FFFFFFFu)) |
                   (bits(y) & broadcast_bits(0x80000000u)));
}
inline void transpose(F32x16* r) {
  alignas(64) float a[kLanes][kLanes], b[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) store(a[i], r[i]);
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) b[j][i] = a[i][j];
  }
  for (int i = 0; i < kLanes; ++i) r[i] = load(b[i]);
}
inline void store_exact(Bf16* p, F32x16 x) {
  const U32x16 u = bits(x);
  for (int i = 0; i < kLanes; ++i) p[i].bits = static_cast<uint16_t>(u.v[i] >> 16);
}

#endif

inline F32x16 sum_of_lanes(F32x16 x) { return broadcast(reduce_add(x)); }
inline F32x16 max_of_lanes(F32x16 x) { return broadcast(reduce_max(x)); }

// The largest bits of |x|: those of the largest magnitude, or above 0x7F800000 where there is a
// NaN.
inline uint32_t largest_magnitude_bits(const float* p, int64_t n) {
  U32x16 largest = broadcast_bits(0);
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    largest = max_bits(largest, bits(load_n(p + i, lanes)) & broadcast_bits(0x7FFFFFFFu));
  });
  return largest_lane(largest);
}
inline uint32_t largest_magnitude_bits(const Bf16* p, int64_t n) {
  // As integers, two per lane of 32 bits; compilers know this loop.
  uint16_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto magnitude = static_cast<uint16_t>(p[i].bits & 0x7FFFu);
    largest = magnitude > largest ? magnitude : largest;
  }
  return static_cast<uint32_t>(largest) << 16;
}

inline F32x16 magnitude(F32x16 x) { return from_bits(bits(x) & broadcast_bits(0x7FFFFFFFu)); }

}  // namespace QSTEP_SIMD_BODY
}  // namespace qstep::ops

namespace qstep::precision {

template <>
struct Lanes<ops::F32x16> {
  using Bits = ops::U32x16;
};
template <>
inline ops::F32x16 all<ops::F32x16>(float x) {
  return ops::broadcast(x);
}
template <>
inline ops::U32x16 all_bits<ops::F32x16>(uint32_t x) {
  return ops::broadcast_bits(x);
}

}  // namespace qstep::precision
