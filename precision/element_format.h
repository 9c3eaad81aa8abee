// What one element of a quantized tensor is: E2M1, E4M3, E5M2, with sign; and the rounding of a
// float to it, as a value (the GEMM reads values) and as the stored bits.
//
// A format with m mantissa bits has the values of FP32 rounded to 1 + m significant bits, in steps
// of `min_normal 2^-m` below min_normal, up to `max`. Rounding saturates, copies the sign (that of
// zero too), and NaN becomes what the hardware's conversion gives (numerics 3.1 to 3.3; the CUDA
// headers cuda_fp4.hpp, cuda_fp8.hpp).
#pragma once

#include "precision/lanes.h"

// A GPU converts two numbers at a time by one instruction: to FP8 from compute capability 8.9 on,
// to E2M1 in code for the families of 10.0, 11.0 and 12.0 (PTX ISA, cvt; cuda_fp8.h has the same
// test).
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define QSTEP_CONVERTS_TO_FP8 1
#endif
#if defined(__CUDA_ARCH_FAMILY_SPECIFIC__)
#if __CUDA_ARCH_FAMILY_SPECIFIC__ >= 1000 && __CUDA_ARCH_FAMILY_SPECIFIC__ < 1300
#define QSTEP_CONVERTS_TO_E2M1 1
#endif
#endif

namespace qstep::precision {

enum class ElementFormat : uint8_t { kE2m1, kE4m3, kE5m2 };

struct ElementTraits {
  int exponent_bits, mantissa_bits, bias;
  float max, min_normal;
  int emax;  // exponent of the largest value
};

template <ElementFormat>
inline constexpr ElementTraits kElement{};
template <>
inline constexpr ElementTraits kElement<ElementFormat::kE2m1>{2, 1, 1, 6.0f, 1.0f, 2};
template <>
inline constexpr ElementTraits kElement<ElementFormat::kE4m3>{4, 3, 7, 448.0f, 0x1p-6f, 8};
template <>
inline constexpr ElementTraits kElement<ElementFormat::kE5m2>{5, 2, 15, 57344.0f, 0x1p-14f, 15};

constexpr ElementTraits traits(ElementFormat format) {
  return format == ElementFormat::kE2m1   ? kElement<ElementFormat::kE2m1>
         : format == ElementFormat::kE4m3 ? kElement<ElementFormat::kE4m3>
                                          : kElement<ElementFormat::kE5m2>;
}

template <class F>
QSTEP_HD inline F not_a_number() {
  return from_bits(all_bits<F>(0x7FFFFFFFu));
}

// 1.5 * 2^23 steps in the binade of |x|, made from bits (integer units have time to spare).
template <ElementFormat kFormat, class F>
QSTEP_HD inline F rounding_magic(F x) {
  constexpr ElementTraits t = kElement<kFormat>;
  constexpr uint32_t kOnePointFiveSteps =
      static_cast<uint32_t>(23 - t.mantissa_bits) << 23 | 0x00400000u;
  const auto binade = max_bits(bits(x) & all_bits<F>(0x7F800000u), bits(all<F>(t.min_normal)));
  return from_bits(binade + all_bits<F>(kOnePointFiveSteps));
}

// |x| in steps, nearest even, saturated: for magnitudes that are not NaN. Adding and subtracting
// 1.5 * 2^23 steps makes FP32's own rounding do the work.
template <ElementFormat kFormat, class F>
QSTEP_HD inline F round_magnitude(F a) {
  constexpr ElementTraits t = kElement<kFormat>;
  const F clamped = min(a, all<F>(t.max));
  const F magic = rounding_magic<kFormat>(clamped);
  return (clamped + magic) - magic;
}

// The nearest value of the format, ties to even, saturated. NaN: +6 in E2M1, NaN in the others.
template <ElementFormat kFormat, class F>
QSTEP_HD inline F round_nearest(F x) {
  const F rounded = with_sign(round_magnitude<kFormat>(magnitude(x)), x);
  const F nan = kFormat == ElementFormat::kE2m1 ? all<F>(6.0f) : not_a_number<F>();
  return select(is_nan(x), nan, rounded);
}

// Where rounding to nearest would go beyond the largest value.
template <ElementFormat kFormat>
inline constexpr float kOverflow = kElement<kFormat>.max +
                                   0.5f * static_cast<float>(1 << kElement<kFormat>.emax) /
                                       static_cast<float>(1 << kElement<kFormat>.mantissa_bits);

// round_nearest for |x| < kOverflow, not NaN: what a quantizer knows of a whole block.
template <ElementFormat kFormat, class F>
QSTEP_HD inline F round_nearest_tame(F x) {
  const F magic = rounding_magic<kFormat>(x);
  return with_sign((x + magic) - magic, x);
}

// The next value towards zero (cudaRoundZero).
template <ElementFormat kFormat, class F>
QSTEP_HD inline F round_toward_zero(F x) {
  constexpr ElementTraits t = kElement<kFormat>;
  constexpr uint32_t kKept = ~((1u << (23 - t.mantissa_bits)) - 1u);
  const F a = min(magnitude(x), all<F>(t.max));
  const F normal = from_bits(bits(a) & all_bits<F>(kKept));
  // Below min_normal: the nearest step, and one less where that lies above.
  const F step = all<F>(t.min_normal / static_cast<float>(1 << t.mantissa_bits));
  const F nearest = round_magnitude<kFormat>(a);
  const F below = select(less(a, nearest), nearest - step, nearest);
  const F rounded = select(less(a, all<F>(t.min_normal)), below, normal);
  const F nan = kFormat == ElementFormat::kE2m1 ? all<F>(6.0f) : not_a_number<F>();
  return select(is_nan(x), nan, with_sign(rounded, x));
}

// ---- stored bits ----------------------------------------------------------------------------

// The code of a value of the format (what round_* gave), one float at a time. NaN: 0x7F.
template <ElementFormat kFormat>
QSTEP_HD inline uint8_t encode(float value) {
  constexpr ElementTraits t = kElement<kFormat>;
  constexpr int kBits = 1 + t.exponent_bits + t.mantissa_bits;
  if (value != value) return 0x7F;
  const uint32_t sign = (bits(value) >> 31) << (kBits - 1);
  const uint32_t magnitude = bits(value) & 0x7FFFFFFFu;
  const float a = from_bits(magnitude);
  if (a < t.min_normal) {  // a whole number of steps
    const float steps = a * (static_cast<float>(1 << t.mantissa_bits) / t.min_normal);
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(steps));
  }
  const uint32_t rebias = static_cast<uint32_t>(127 - t.bias) << t.mantissa_bits;
  return static_cast<uint8_t>(sign | ((magnitude >> (23 - t.mantissa_bits)) - rebias));
}

// encode(round_nearest(x)) in the low bits and that of y above it, by the GPU's conversion where it
// has one. That saturates, keeps the sign of a zero, and makes a NaN 0x7F (E2M1: +6), as
// round_nearest does: nothing is left to correct. Where the value is wanted and not the code, the
// way through a code and back costs more than round_nearest_tame.
template <ElementFormat kFormat>
QSTEP_HD_INLINE uint32_t encode_nearest(float x, float y) {
#ifdef QSTEP_CONVERTS_TO_FP8
  uint16_t codes;
  if constexpr (kFormat == ElementFormat::kE4m3) {
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %2, %1;" : "=h"(codes) : "f"(x), "f"(y));
    return codes;
  }
  if constexpr (kFormat == ElementFormat::kE5m2) {
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %2, %1;" : "=h"(codes) : "f"(x), "f"(y));
    return codes;
  }
#endif
#ifdef QSTEP_CONVERTS_TO_E2M1
  if constexpr (kFormat == ElementFormat::kE2m1) {
    uint32_t pair;
    asm("{ .reg .b8 pair;\n\t"
        "cvt.rn.satfinite.e2m1x2.f32 pair, %2, %1;\n\t"
        "cvt.u32.u8 %0, pair; }"
        : "=r"(pair)
        : "f"(x), "f"(y));
    return pair;
  }
#endif
  constexpr int kBits = kFormat == ElementFormat::kE2m1 ? 4 : 8;
  const uint32_t low = encode<kFormat>(round_nearest<kFormat>(x));
  const uint32_t high = encode<kFormat>(round_nearest<kFormat>(y));
  return low | high << kBits;
}

// The value of a code; bits above the format's are ignored. E4M3: 0x7F and 0xFF are NaN; E5M2: 0x7C
// is infinity and what lies above it NaN.
template <ElementFormat kFormat>
QSTEP_HD inline float decode(uint8_t code) {
  constexpr ElementTraits t = kElement<kFormat>;
  constexpr int kBits = 1 + t.exponent_bits + t.mantissa_bits;
  const uint32_t sign = ((static_cast<uint32_t>(code) >> (kBits - 1)) & 1u) << 31;
  const uint32_t c = code & ((1u << (kBits - 1)) - 1u);
  if (kFormat == ElementFormat::kE4m3 && c == 0x7Fu) return from_bits(sign | 0x7FFFFFFFu);
  if (kFormat == ElementFormat::kE5m2 && c >= 0x7Cu) {
    return from_bits(sign | (c == 0x7Cu ? 0x7F800000u : 0x7FFFFFFFu));
  }
  const float magnitude =
      (c >> t.mantissa_bits) == 0
          ? static_cast<float>(c) * (t.min_normal / static_cast<float>(1 << t.mantissa_bits))
          : from_bits((c + (static_cast<uint32_t>(127 - t.bias) << t.mantissa_bits))
                      << (23 - t.mantissa_bits));
  return from_bits(bits(magnitude) | sign);
}

}  // namespace qstep::precision
