// Quantizes a unit: the consecutive elements along k that depend on each other (a Hadamard group,
// an outer group, or one block), in every lane of F one unit. Values in, values out:
//
//   v (raw)  ->  signs, Hadamard, BF16  ->  block amax  ->  scale  ->  round(v enc)  ->  q s
//
// This is the whole arithmetic of the block-scaled formats, the same source for a CPU's sixteen
// lanes and for a GPU's thread.
#pragma once

#include <type_traits>

#include "precision/four_over_six.h"
#include "precision/fp8_scale.h"
#include "precision/hadamard.h"
#include "precision/ms_eden.h"
#include "precision/mx_scale.h"
#include "precision/quant_spec.h"

namespace qstep::precision {

inline constexpr int kMaxUnit = 128;
inline constexpr int kMaxUnitBlocks = 8;

// What is the same for every unit of a tensor.
struct UnitPlan {
  QuantSpec spec;
  int unit = 16;                    // elements
  SignBits signs{};                 // with spec.hadamard
  float range = 0;                  // nvfp4: 6 e4m3_max, with headroom
  bool headroom = false;            // nvfp4: 16/17
  float largest_scale = kMaxFloat;  // fp8 blocks: stands for a scale that overflows
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t element_stream = 0, scale_stream = 0;
};

// What a unit learns from outside, per lane.
template <class F>
struct UnitContext {
  F outer_amax;           // nvfp4: amax of the tensor or of the row; MS-EDEN: s_dec
  Nvfp4Factors<F> outer;  // nvfp4: made from it
  F block_amax;           // square blocks: of the whole block
};

// What it leaves beside the values, per lane.
template <class F>
struct UnitScales {
  F block[kMaxUnitBlocks];  // the value of each block's scale (fp8: scale_inv)
  F enc[kMaxUnitBlocks];    // what its elements were multiplied by
  F outer;                  // outer groups: their FP32 scale
};

// Largest |v| of a block with NaN left out, per lane. `raw` is the largest of the bits of |v|:
// above 0x7F800000 where there is a NaN, equal where there is an infinity.
template <class F>
struct BlockAmax {
  F amax;
  BitsOf<F> raw;
};

template <int kCount, class F>
QSTEP_HD_INLINE BlockAmax<F> amax_of(const F* v) {
  using U = BitsOf<F>;
  const U mask = all_bits<F>(0x7FFFFFFFu);
  U raw = bits(v[0]) & mask;
  QSTEP_UNROLL_ARRAY(kCount, 32)
  for (int i = 1; i < kCount; ++i) raw = max_bits(raw, bits(v[i]) & mask);
  if (!any(less_bits(all_bits<F>(0x7F800000u), raw))) return {from_bits(raw), raw};
  F amax = all<F>(0.0f);
  QSTEP_UNROLL_DEVICE(kCount)
  for (int i = 0; i < kCount; ++i) amax = max(magnitude(v[i]), amax);
  return {amax, raw};
}

// No element of a block is NaN or rounds beyond the largest value, in any lane.
template <ElementFormat kFormat, class F>
QSTEP_HD_INLINE bool is_tame(BitsOf<F> raw, F enc) {
  return !any(
      less_bits(bits(all<F>(kOverflow<kFormat>)) - all_bits<F>(1), bits(from_bits(raw) * enc)));
}

// The transform, rounded to BF16.
template <int kSize, class F>
QSTEP_HD_INLINE void hadamard_group(F* v, const SignBits& signs) {
  hadamard_unscaled<kSize>(v, signs);
#ifdef __CUDA_ARCH__
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) v[i] = round_to_bf16(v[i] * all<F>(hadamard_scale(kSize)));
#else
  BitsOf<F> raw = all_bits<F>(0);
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) {
    v[i] = v[i] * all<F>(hadamard_scale(kSize));
    raw = max_bits(raw, bits(v[i]) & all_bits<F>(0x7FFFFFFFu));
  }
  if (any(less_bits(all_bits<F>(0x7F800000u), raw))) {
    QSTEP_UNROLL_DEVICE(kSize)
    for (int i = 0; i < kSize; ++i) v[i] = round_to_bf16(v[i]);
    return;
  }
  QSTEP_UNROLL_ARRAY(kSize, 16)
  for (int i = 0; i < kSize; ++i) v[i] = round_number_to_bf16(v[i]);
#endif
}

template <int kUnit, class F>
QSTEP_HD_INLINE void hadamard_unit(const UnitPlan& plan, F* v) {
  const int d = plan.spec.hadamard;
  if (d == 0) return;
  QSTEP_UNROLL_ARRAY(kUnit, 8)
  for (int first = 0; first < kUnit; first += 16) {
    if (d == 16) hadamard_group<16>(v + first, plan.signs);
    if constexpr (kUnit >= 32) {
      if (d == 32 && first % 32 == 0) hadamard_group<32>(v + first, plan.signs);
    }
    if constexpr (kUnit >= 64) {
      if (d == 64 && first % 64 == 0) hadamard_group<64>(v + first, plan.signs);
    }
    if constexpr (kUnit >= 128) {
      if (d == 128 && first == 0) hadamard_group<128>(v, plan.signs);
    }
  }
}

// What a quantizer leaves beside its scales, by the type of its argument `codes`:
//   F*           values, v = round(v enc) s; and where it is not null, codes[i] = round(v enc)
//   CodesAlone   v is what encode_nearest makes codes of: round(v enc), or v enc where that rounds
//   to
//                the nearest by itself. For a GPU, whose registers hold one of the two.
struct CodesAlone {};

// Those from element `first` of a unit on.
template <class F>
QSTEP_HD_INLINE F* codes_from(F* codes, int first) {
  return codes == nullptr ? nullptr : codes + first;
}
QSTEP_HD_INLINE CodesAlone codes_from(CodesAlone codes, int) { return codes; }

template <ElementFormat kFormat, int kCount, class F>
QSTEP_HD_INLINE void round_block(F* v, BitsOf<F>, F enc, F, CodesAlone) {
  QSTEP_UNROLL_ARRAY(kCount, 32)
  for (int i = 0; i < kCount; ++i) v[i] = v[i] * enc;
}
template <ElementFormat kFormat, int kCount, class F>
QSTEP_HD_INLINE void round_block(F* v, BitsOf<F> raw, F enc, F s, F* codes) {
  if (codes == nullptr && is_tame<kFormat>(raw, enc)) {
    QSTEP_UNROLL_ARRAY(kCount, 32)
    for (int i = 0; i < kCount; ++i) v[i] = round_nearest_tame<kFormat>(v[i] * enc) * s;
    return;
  }
  QSTEP_UNROLL_DEVICE(kCount)
  for (int i = 0; i < kCount; ++i) {
    const F q = round_nearest<kFormat>(v[i] * enc);
    if (codes != nullptr) codes[i] = q;
    v[i] = q * s;
  }
}

// The same for sixteen elements of E2M1 with random bytes; `shrink` is a second factor (MXFP4's
// 3/4), rounded apart.
template <class F>
QSTEP_HD_INLINE void round_block_stochastic(F* v, BitsOf<F> raw, F enc, float shrink, F,
                                            const RandomWords<F>& words, CodesAlone) {
  const bool tame = shrink == 1.0f && is_tame<ElementFormat::kE2m1>(raw, enc);
  QSTEP_UNROLL(16)
  for (int i = 0; i < 16; ++i) {
    if (tame) {
      v[i] = round_stochastic_e2m1_by<Range::kTame>(v[i] * enc, random_fraction(words, i));
    } else {
      const F u = v[i] * enc;
      v[i] = round_stochastic_e2m1(shrink == 1.0f ? u : u * all<F>(shrink), random_byte(words, i));
    }
  }
}
template <class F>
QSTEP_HD_INLINE void round_block_stochastic(F* v, BitsOf<F> raw, F enc, float shrink, F s,
                                            const RandomWords<F>& words, F* codes) {
  if (codes == nullptr && shrink == 1.0f && is_tame<ElementFormat::kE2m1>(raw, enc)) {
    QSTEP_UNROLL(16)
    for (int i = 0; i < 16; ++i) {
      v[i] = round_stochastic_e2m1_by<Range::kTame>(v[i] * enc, random_fraction(words, i)) * s;
    }
    return;
  }
  QSTEP_UNROLL_DEVICE(16)
  for (int i = 0; i < 16; ++i) {
    F u = v[i] * enc;
    if (shrink != 1.0f) u = u * all<F>(shrink);
    const F q = round_stochastic_e2m1(u, random_byte(words, i));
    if (codes != nullptr) codes[i] = q;
    v[i] = q * s;
  }
}

// random(block, purpose stream) gives the words of the unit's block-th sixteen elements.

// The scale of one block.
template <class F>
QSTEP_HD_INLINE BlockScale<F> nvfp4_scale_of(const UnitPlan& plan, const F* x, F amax,
                                             const UnitContext<F>& context) {
  const QuantSpec& spec = plan.spec;
  if (spec.scale == ScaleRule::kE4m3TwoRounding) {
    return nvfp4_block_scale_two_rounding(amax, context.outer, plan.headroom);
  }
  if (spec.four_over_six == FourOverSix::kNone) return nvfp4_block_scale(amax, context.outer);
  const FourOverSixTensor<F> tensor{context.outer_amax, plan.range};
  const auto six = four_over_six_scale(amax, context.outer, plan.headroom, 1.0f);
  const auto four = four_over_six_scale(amax, context.outer, plan.headroom, 1.5f);
  F error6 = four_over_six_error<16>(x, six, tensor, spec.four_over_six);
  F error4 = four_over_six_error<16>(x, four, tensor, spec.four_over_six);
  if (spec.block.square() && spec.four_over_six == FourOverSix::kAbsMax) {
    error6 = max_of_lanes(error6);
    error4 = max_of_lanes(error4);
  } else if (spec.block.square()) {
    error6 = sum_of_lanes(error6);
    error4 = sum_of_lanes(error4);
  }
  const auto better = less(error4, error6);
  return {select(better, four.s, six.s), select(better, four.enc, six.enc)};
}

// Stage by stage over the blocks: what one block waits for (two divisions in a row) overlaps with
// the others'.
template <int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void nvfp4_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                                const Random& random) {
  constexpr int kBlocks = kUnit / 16;
  const bool square = plan.spec.block.square();
  BlockAmax<F> own[kBlocks];
  QSTEP_UNROLL_ARRAY(kUnit, 1)
  for (int b = 0; b < kBlocks; ++b) {
    own[b] = amax_of<16>(v + 16 * b);
    raw = max_bits(raw, own[b].raw);
  }
  QSTEP_UNROLL_ARRAY(kUnit, 8)
  for (int b = 0; b < kBlocks; ++b) {
    const BlockScale<F> scale =
        nvfp4_scale_of(plan, v + 16 * b, square ? context.block_amax : own[b].amax, context);
    scales.block[b] = scale.s;
    scales.enc[b] = scale.enc;
  }
  QSTEP_UNROLL_ARRAY(kUnit, 1)
  for (int b = 0; b < kBlocks; ++b) {
    F* const x = v + 16 * b;
    const auto q = codes_from(codes, 16 * b);
    if (plan.spec.rounding == Rounding::kStochastic) {
      round_block_stochastic(x, own[b].raw, scales.enc[b], 1.0f, scales.block[b],
                             random(b, plan.element_stream), q);
    } else {
      round_block<ElementFormat::kE2m1, 16>(x, own[b].raw, scales.enc[b], scales.block[b], q);
    }
  }
}

// TetraJet-v2 (numerics 7.9): an FP32 scale per 128, which the GEMM applies to partial sums.
//   os = amax / 448 / 6, 0 -> 1;   is = e4m3(block_amax / os / 6), 2^-9 for a block of zeros
//   enc = min(1 / fl(os is), FLT_MAX), 0 where is is 0
template <class F, class Codes, class Random>
QSTEP_HD inline void nvfp4_group_unit(const UnitPlan& plan, F* v, UnitScales<F>& scales,
                                      BitsOf<F>& raw, Codes codes, const Random& random) {
  const F zero = all<F>(0.0f), one = all<F>(1.0f), six = all<F>(6.0f);
  BlockAmax<F> block[kMaxUnitBlocks];
  F outer_amax = zero;
  for (int b = 0; b < kMaxUnitBlocks; ++b) {
    block[b] = amax_of<16>(v + 16 * b);
    raw = max_bits(raw, block[b].raw);
    outer_amax = max(block[b].amax, outer_amax);
  }
  const F quotient = (outer_amax / all<F>(448.0f)) / six;
  const F os = select(equal(quotient, zero), one, quotient);
  scales.outer = os;
  for (int b = 0; b < kMaxUnitBlocks; ++b) {
    const auto q = codes_from(codes, 16 * b);
    const F rounded = round_nearest<ElementFormat::kE4m3>((block[b].amax / os) / six);
    const F s = select(equal(block[b].amax, zero), all<F>(0x1p-9f), rounded);
    const F enc = select(equal(s, zero), zero, min(one / (os * s), all<F>(kMaxFloat)));
    scales.block[b] = s;
    scales.enc[b] = enc;
    if (plan.spec.rounding == Rounding::kStochastic) {
      round_block_stochastic(v + 16 * b, block[b].raw, enc, 1.0f, s, random(b, plan.element_stream),
                             q);
    } else {
      round_block<ElementFormat::kE2m1, 16>(v + 16 * b, block[b].raw, enc, s, q);
    }
  }
}

template <int kUnit, class F, class Codes, class Random>
QSTEP_HD inline void ms_eden_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                  UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                                  const Random& random) {
  const F s_dec = context.outer_amax;
  constexpr int blocks = kUnit / 16;
  MsEdenSums<F> sums{all<F>(0.0f), all<F>(0.0f)};
  F s[kMaxUnitBlocks];
  QSTEP_UNROLL_DEVICE(kUnit)
  for (int b = 0; b < blocks; ++b) {
    const BlockAmax<F> block = amax_of<16>(v + 16 * b);
    raw = max_bits(raw, block.raw);
    s[b] = ms_eden_block_scale(block.amax, s_dec);
    ms_eden_round_block(v + 16 * b, 16, s[b], s_dec, sums);
  }
  const F c = ms_eden_correction(sums);
  QSTEP_UNROLL_DEVICE(kUnit)
  for (int b = 0; b < blocks; ++b) {
    const F corrected = round_stochastic_e4m3(s[b] * c, random.scale_word(b, plan.scale_stream));
    scales.block[b] = corrected;
    scales.enc[b] = all<F>(1.0f) / (s[b] * s_dec);
    QSTEP_UNROLL_DEVICE(16)
    for (int i = 16 * b; i < 16 * (b + 1); ++i) {
      if constexpr (!std::is_same_v<Codes, CodesAlone>) {
        if (codes != nullptr) codes[i] = v[i];
        v[i] = v[i] * corrected;
      }
    }
  }
}

template <ElementFormat kFormat, int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void mx_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                             UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                             const Random& random) {
  const QuantSpec& spec = plan.spec;
  const float shrink = spec.headroom == Headroom::kThreeQuarters ? 0.75f : 1.0f;
  QSTEP_UNROLL_ARRAY(kUnit, 1)
  for (int b = 0; 32 * b < kUnit; ++b) {
    F* const x = v + 32 * b;
    const auto q = codes_from(codes, 32 * b);
    const BlockAmax<F> own = amax_of<32>(x);
    raw = max_bits(raw, own.raw);
    const F amax = spec.block.square() ? context.block_amax : own.amax;
    const auto code = spec.scale == ScaleRule::kPow2Up ? mx_scale_up<kFormat>(amax)
                                                       : mx_scale_floor<kFormat>(amax);
    const F s = e8m0_value<F>(code), enc = e8m0_reciprocal<F>(code);
    scales.block[b] = s;
    scales.enc[b] = shrink == 1.0f ? enc : enc * all<F>(shrink);
    if (kFormat == ElementFormat::kE2m1 && spec.rounding == Rounding::kStochastic) {
      QSTEP_UNROLL_DEVICE(2)
      for (int half = 0; half < 2; ++half) {
        round_block_stochastic(x + 16 * half, own.raw, enc, shrink, s,
                               random(2 * b + half, plan.element_stream), codes_from(q, 16 * half));
      }
    } else {
      if (shrink != 1.0f) {
        QSTEP_UNROLL_DEVICE(32)
        for (int i = 0; i < 32; ++i) x[i] = (x[i] * enc) * all<F>(shrink);
      }
      const F factor = shrink == 1.0f ? enc : all<F>(1.0f);
      round_block<kFormat, 32>(x, own.raw, factor, s, q);
    }
  }
}

// FP8 with an FP32 scale per 128 elements (or 128x128): scale_inv is applied to the GEMM's partial
// sums, or, a power of two, to the values. A unit is all of a block's row, or, where the amax comes
// from outside, a part of it.
template <ElementFormat kFormat, int kUnit, class F, class Codes>
QSTEP_HD_INLINE void fp8_block_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                    UnitScales<F>& scales, BitsOf<F>& raw, Codes codes) {
  const bool pow2 = plan.spec.scale == ScaleRule::kFp32Pow2;
  // A NaN stays in this amax, and makes the scale 1 (numerics 5).
  F amax = context.block_amax;
  BitsOf<F> own = bits(amax);  // at least this part's
  if constexpr (kUnit == kMaxUnit) {
    own = amax_of<kUnit>(v).raw;
    if (!plan.spec.block.square()) amax = from_bits(own);
  }
  raw = max_bits(raw, own);
  const F scale = fp8_scale(amax, kElement<kFormat>.max, plan.largest_scale, pow2);
  const F inverse = all<F>(1.0f) / scale;
  scales.block[0] = inverse;
  scales.enc[0] = scale;
  scales.outer = inverse;
  round_block<kFormat, kUnit>(v, own, scale, pow2 ? inverse : all<F>(1.0f), codes);
}

// v[0, kUnit) becomes the decoded values, codes times block scales, or what CodesAlone says. kUnit
// is plan.unit and kFormat plan.spec.format, at compile time.
template <QuantFormat kFormat, int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void quantize_unit_of(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                      UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                                      const Random& random) {
  if constexpr (kFormat == QuantFormat::kNvfp4) {
    if (plan.spec.rounding == Rounding::kMsEden) {
      return ms_eden_unit<kUnit>(plan, v, context, scales, raw, codes, random);
    }
    if constexpr (kUnit == kMaxUnit) {
      if (plan.spec.amax == AmaxScope::kGroup128) {
        return nvfp4_group_unit(plan, v, scales, raw, codes, random);
      }
    }
    nvfp4_unit<kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kMxfp4) {
    mx_unit<ElementFormat::kE2m1, kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kMxfp8E4m3) {
    mx_unit<ElementFormat::kE4m3, kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kMxfp8E5m2) {
    mx_unit<ElementFormat::kE5m2, kUnit>(plan, v, context, scales, raw, codes, random);
  } else if constexpr (kFormat == QuantFormat::kFp8E4m3) {
    fp8_block_unit<ElementFormat::kE4m3, kUnit>(plan, v, context, scales, raw, codes);
  } else if constexpr (kFormat == QuantFormat::kFp8E5m2) {
    fp8_block_unit<ElementFormat::kE5m2, kUnit>(plan, v, context, scales, raw, codes);
  }
}

// The same, the format at run time.
template <int kUnit, class F, class Codes, class Random>
QSTEP_HD_INLINE void quantize_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                   UnitScales<F>& scales, BitsOf<F>& raw, Codes codes,
                                   const Random& random) {
  const QuantFormat format = plan.spec.format;
  if (format == QuantFormat::kNvfp4) {
    return quantize_unit_of<QuantFormat::kNvfp4, kUnit>(plan, v, context, scales, raw, codes,
                                                        random);
  }
  if constexpr (kUnit >= 32) {
    if (format == QuantFormat::kMxfp4) {
      return quantize_unit_of<QuantFormat::kMxfp4, kUnit>(plan, v, context, scales, raw, codes,
                                                          random);
    }
    if (format == QuantFormat::kMxfp8E4m3) {
      return quantize_unit_of<QuantFormat::kMxfp8E4m3, kUnit>(plan, v, context, scales, raw, codes,
                                                              random);
    }
    if (format == QuantFormat::kMxfp8E5m2) {
      return quantize_unit_of<QuantFormat::kMxfp8E5m2, kUnit>(plan, v, context, scales, raw, codes,
                                                              random);
    }
  }
  if constexpr (kUnit == kMaxUnit) {
    if (format == QuantFormat::kFp8E4m3) {
      return quantize_unit_of<QuantFormat::kFp8E4m3, kUnit>(plan, v, context, scales, raw, codes,
                                                            random);
    }
    if (format == QuantFormat::kFp8E5m2) {
      return quantize_unit_of<QuantFormat::kFp8E5m2, kUnit>(plan, v, context, scales, raw, codes,
                                                            random);
    }
  }
}

// f(std::integral_constant) with the unit as a compile-time number.
template <class F>
inline void dispatch_unit(int unit, F&& f) {
  switch (unit) {
    case 16:
      return f(std::integral_constant<int, 16>{});
    case 32:
      return f(std::integral_constant<int, 32>{});
    case 64:
      return f(std::integral_constant<int, 64>{});
    default:
      return f(std::integral_constant<int, 128>{});
  }
}

}  // namespace qstep::precision
