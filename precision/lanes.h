// What the arithmetic of this room is written in: a number type F that is one float (device code,
// tests) or sixteen side by side (the CPU's loops, ops/simd/simd.h). A template over F is one
// source for both, with the same bits in every lane.
//
// Each type of sixteen lanes brings the functions below for itself; these are those of one float.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "precision/hd.h"

namespace qstep::precision {

// Lanes<F>::Bits holds the bits of each lane.
template <class F>
struct Lanes;

template <>
struct Lanes<float> {
  using Bits = uint32_t;
};

template <class F>
using BitsOf = typename Lanes<F>::Bits;

// The same value in every lane.
template <class F>
QSTEP_HD inline F all(float x);
template <>
QSTEP_HD inline float all<float>(float x) {
  return x;
}
template <class F>
QSTEP_HD inline BitsOf<F> all_bits(uint32_t x);
template <>
QSTEP_HD inline uint32_t all_bits<float>(uint32_t x) {
  return x;
}

QSTEP_HD inline uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
QSTEP_HD inline float from_bits(uint32_t x) { return std::bit_cast<float>(x); }

QSTEP_HD inline float select(bool mask, float yes, float no) { return mask ? yes : no; }
QSTEP_HD inline uint32_t select(bool mask, uint32_t yes, uint32_t no) { return mask ? yes : no; }

// b where either is NaN.
QSTEP_HD inline float max(float a, float b) { return a > b ? a : b; }
QSTEP_HD inline float min(float a, float b) { return a < b ? a : b; }
QSTEP_HD inline uint32_t max_bits(uint32_t a, uint32_t b) { return a > b ? a : b; }

QSTEP_HD inline float magnitude(float x) { return from_bits(bits(x) & 0x7FFFFFFFu); }
// |x| with the sign of y.
QSTEP_HD inline float with_sign(float x, float y) {
  return from_bits((bits(x) & 0x7FFFFFFFu) | (bits(y) & 0x80000000u));
}

QSTEP_HD inline bool less(float a, float b) { return a < b; }
QSTEP_HD inline bool less_equal(float a, float b) { return a <= b; }
QSTEP_HD inline bool equal(float a, float b) { return a == b; }
QSTEP_HD inline bool is_nan(float x) { return x != x; }
QSTEP_HD inline bool equal_bits(uint32_t a, uint32_t b) { return a == b; }
QSTEP_HD inline bool less_bits(uint32_t a, uint32_t b) { return a < b; }

QSTEP_HD inline bool any(bool mask) { return mask; }

QSTEP_HD inline uint32_t shift_left(uint32_t x, int n) { return x << n; }
QSTEP_HD inline uint32_t shift_right(uint32_t x, int n) { return x >> n; }
// The upper and the lower half of the 64-bit product.
QSTEP_HD inline uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}
QSTEP_HD inline uint32_t multiply_low(uint32_t a, uint32_t b) { return a * b; }
// a * b + c with one rounding.
QSTEP_HD inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
// An integer below 2^24 as a number.
QSTEP_HD inline float to_number(uint32_t x) { return static_cast<float>(x); }

// The sum (halves folded onto each other) and the maximum over the lanes, in every lane.
QSTEP_HD inline float sum_of_lanes(float x) { return x; }
QSTEP_HD inline float max_of_lanes(float x) { return x; }

}  // namespace qstep::precision
