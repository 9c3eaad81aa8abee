// Quantizes a unit: the consecutive elements along k that depend on each other (a Hadamard group,
// an outer group, or one block), in every lane of F one unit. Values in, values out:
//
//   v (raw)  ->  signs, Hadamard, BF16  ->  block amax  ->  scale  ->  round(v enc)  ->  q s
//
// This is the whole arithmetic of the block-scaled formats, the same source for a CPU's sixteen
// lanes and for a GPU's thread.
#pragma once

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

// Largest |v| with NaN left out. `raw` is the largest of the bits of |v|: above 0x7F800000 where
// there is a NaN, equal where there is an infinity.
template <int kCount, class F>
QSTEP_HD inline F amax_of(const F* v, BitsOf<F>& raw) {
  using U = BitsOf<F>;
  const U mask = all_bits<F>(0x7FFFFFFFu);
  U largest = bits(v[0]) & mask;
#pragma GCC unroll 16
  for (int i = 1; i < kCount; ++i) largest = max_bits(largest, bits(v[i]) & mask);
  raw = max_bits(raw, largest);
  if (!any(less_bits(all_bits<F>(0x7F800000u), largest))) return from_bits(largest);
  F amax = all<F>(0.0f);
  for (int i = 0; i < kCount; ++i) amax = max(magnitude(v[i]), amax);
  return amax;
}

// The transform of plan.spec, rounded to BF16.
template <int kSize, class F>
QSTEP_HD inline void hadamard_group(F* v, const SignBits& signs) {
  hadamard_unscaled<kSize>(v, signs);
#pragma GCC unroll 16
  for (int i = 0; i < kSize; ++i) v[i] = round_to_bf16(v[i] * all<F>(hadamard_scale(kSize)));
}

template <class F>
QSTEP_HD inline void hadamard_unit(const UnitPlan& plan, F* v) {
  const int d = plan.spec.hadamard;
  for (int first = 0; d > 0 && first < plan.unit; first += d) {
    if (d == 16) hadamard_group<16>(v + first, plan.signs);
    if (d == 32) hadamard_group<32>(v + first, plan.signs);
    if (d == 64) hadamard_group<64>(v + first, plan.signs);
    if (d == 128) hadamard_group<128>(v + first, plan.signs);
  }
}

// v = round(v enc) s; codes, if wanted, receive round(v enc).
template <ElementFormat kFormat, int kCount, class F>
QSTEP_HD inline void round_block(F* v, F enc, F s, F* codes) {
#pragma GCC unroll 16
  for (int i = 0; i < kCount; ++i) {
    const F q = round_nearest<kFormat>(v[i] * enc);
    if (codes != nullptr) codes[i] = q;
    v[i] = q * s;
  }
}

// The same for sixteen elements of E2M1 with random bytes; `shrink` is a second factor (MXFP4's
// 3/4), rounded apart.
template <class F>
QSTEP_HD inline void round_block_stochastic(F* v, F enc, float shrink, F s,
                                            const RandomWords<F>& words, F* codes) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    F u = v[i] * enc;
    if (shrink != 1.0f) u = u * all<F>(shrink);
    const F q = round_stochastic_e2m1(u, random_byte(words, i));
    if (codes != nullptr) codes[i] = q;
    v[i] = q * s;
  }
}

// random(block, purpose stream) gives the words of the unit's block-th sixteen elements.

template <class F, class Random>
QSTEP_HD inline void nvfp4_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                UnitScales<F>& scales, BitsOf<F>& raw, F* codes,
                                const Random& random) {
  const QuantSpec& spec = plan.spec;
  const bool square = spec.block.square();
  for (int b = 0; 16 * b < plan.unit; ++b) {
    F* const x = v + 16 * b;
    F* const q = codes == nullptr ? nullptr : codes + 16 * b;
    const F own_amax = amax_of<16>(x, raw);
    const F amax = square ? context.block_amax : own_amax;
    BlockScale<F> scale;
    if (spec.four_over_six != FourOverSix::kNone) {
      const FourOverSixTensor<F> tensor{context.outer_amax, plan.range};
      const auto six = four_over_six_scale(amax, context.outer, 1.0f);
      const auto four = four_over_six_scale(amax, context.outer, 1.5f);
      F error6 = four_over_six_error<16>(x, six, tensor, spec.four_over_six);
      F error4 = four_over_six_error<16>(x, four, tensor, spec.four_over_six);
      if (square && spec.four_over_six == FourOverSix::kAbsMax) {
        error6 = max_of_lanes(error6);
        error4 = max_of_lanes(error4);
      } else if (square) {
        error6 = sum_of_lanes(error6);
        error4 = sum_of_lanes(error4);
      }
      const auto better = less(error4, error6);
      scale = {select(better, four.s, six.s), select(better, four.enc, six.enc)};
    } else if (spec.scale == ScaleRule::kE4m3TwoRounding) {
      scale = nvfp4_block_scale_two_rounding(amax, context.outer, plan.headroom);
    } else {
      scale = nvfp4_block_scale(amax, context.outer);
    }
    scales.block[b] = scale.s;
    scales.enc[b] = scale.enc;
    if (spec.rounding == Rounding::kStochastic) {
      round_block_stochastic(x, scale.enc, 1.0f, scale.s, random(b, plan.element_stream), q);
    } else {
      round_block<ElementFormat::kE2m1, 16>(x, scale.enc, scale.s, q);
    }
  }
}

// TetraJet-v2 (numerics 7.9): an FP32 scale per 128, which the GEMM applies to partial sums.
//   os = amax / 448 / 6, 0 -> 1;   is = e4m3(block_amax / os / 6), 2^-9 for a block of zeros
//   enc = 1 / (os is), 0 where is is 0
template <class F, class Random>
QSTEP_HD inline void nvfp4_group_unit(const UnitPlan& plan, F* v, UnitScales<F>& scales,
                                      BitsOf<F>& raw, F* codes, const Random& random) {
  const F zero = all<F>(0.0f), one = all<F>(1.0f), six = all<F>(6.0f);
  F block_amax[kMaxUnitBlocks];
  F outer_amax = zero;
  for (int b = 0; b < kMaxUnitBlocks; ++b) {
    block_amax[b] = amax_of<16>(v + 16 * b, raw);
    outer_amax = max(block_amax[b], outer_amax);
  }
  const F quotient = (outer_amax / all<F>(448.0f)) / six;
  const F os = select(equal(quotient, zero), one, quotient);
  scales.outer = os;
  for (int b = 0; b < kMaxUnitBlocks; ++b) {
    F* const q = codes == nullptr ? nullptr : codes + 16 * b;
    const F rounded = round_nearest<ElementFormat::kE4m3>((block_amax[b] / os) / six);
    const F s = select(equal(block_amax[b], zero), all<F>(0x1p-9f), rounded);
    const F enc = select(equal(s, zero), zero, one / (os * s));
    scales.block[b] = s;
    scales.enc[b] = enc;
    if (plan.spec.rounding == Rounding::kStochastic) {
      round_block_stochastic(v + 16 * b, enc, 1.0f, s, random(b, plan.element_stream), q);
    } else {
      round_block<ElementFormat::kE2m1, 16>(v + 16 * b, enc, s, q);
    }
  }
}

template <class F, class Random>
QSTEP_HD inline void ms_eden_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                  UnitScales<F>& scales, BitsOf<F>& raw, F* codes,
                                  const Random& random) {
  const F s_dec = context.outer_amax;
  const int blocks = plan.unit / 16;
  MsEdenSums<F> sums{all<F>(0.0f), all<F>(0.0f)};
  F s[kMaxUnitBlocks];
  for (int b = 0; b < blocks; ++b) {
    s[b] = ms_eden_block_scale(amax_of<16>(v + 16 * b, raw), s_dec);
    ms_eden_round_block(v + 16 * b, 16, s[b], s_dec, sums);
  }
  const F c = ms_eden_correction(sums);
  for (int b = 0; b < blocks; ++b) {
    const F corrected = round_stochastic_e4m3(s[b] * c, random.scale_word(b, plan.scale_stream));
    scales.block[b] = corrected;
    scales.enc[b] = all<F>(1.0f) / (s[b] * s_dec);
    for (int i = 16 * b; i < 16 * (b + 1); ++i) {
      if (codes != nullptr) codes[i] = v[i];
      v[i] = v[i] * corrected;
    }
  }
}

template <ElementFormat kFormat, class F, class Random>
QSTEP_HD inline void mx_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                             UnitScales<F>& scales, BitsOf<F>& raw, F* codes,
                             const Random& random) {
  const QuantSpec& spec = plan.spec;
  const float shrink = spec.headroom == Headroom::kThreeQuarters ? 0.75f : 1.0f;
  for (int b = 0; 32 * b < plan.unit; ++b) {
    F* const x = v + 32 * b;
    F* const q = codes == nullptr ? nullptr : codes + 32 * b;
    const F own_amax = amax_of<32>(x, raw);
    const F amax = spec.block.square() ? context.block_amax : own_amax;
    const auto code = spec.scale == ScaleRule::kPow2Up ? mx_scale_up<kFormat>(amax)
                                                       : mx_scale_floor<kFormat>(amax);
    const F s = e8m0_value<F>(code), enc = e8m0_reciprocal<F>(code);
    scales.block[b] = s;
    scales.enc[b] = shrink == 1.0f ? enc : enc * all<F>(shrink);
    if (kFormat == ElementFormat::kE2m1 && spec.rounding == Rounding::kStochastic) {
      for (int half = 0; half < 2; ++half) {
        round_block_stochastic(x + 16 * half, enc, shrink, s,
                               random(2 * b + half, plan.element_stream),
                               q == nullptr ? nullptr : q + 16 * half);
      }
    } else {
      if (shrink != 1.0f) {
        for (int i = 0; i < 32; ++i) x[i] = (x[i] * enc) * all<F>(shrink);
        round_block<kFormat, 32>(x, all<F>(1.0f), s, q);
      } else {
        round_block<kFormat, 32>(x, enc, s, q);
      }
    }
  }
}

// FP8 with an FP32 scale per 128 elements (or 128x128): scale_inv is applied to the GEMM's partial
// sums, or, a power of two, to the values.
template <ElementFormat kFormat, class F>
QSTEP_HD inline void fp8_block_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                    UnitScales<F>& scales, BitsOf<F>& raw, F* codes) {
  const bool pow2 = plan.spec.scale == ScaleRule::kFp32Pow2;
  const F own_amax = amax_of<kMaxUnit>(v, raw);
  const F amax = plan.spec.block.square() ? context.block_amax : own_amax;
  const F scale = fp8_scale(amax, kElement<kFormat>.max, plan.largest_scale, pow2);
  const F inverse = all<F>(1.0f) / scale;
  scales.block[0] = inverse;
  scales.enc[0] = scale;
  scales.outer = inverse;
  round_block<kFormat, kMaxUnit>(v, scale, pow2 ? inverse : all<F>(1.0f), codes);
}

// v[0, plan.unit) becomes the decoded values: codes times block scales.
template <class F, class Random>
QSTEP_HD inline void quantize_unit(const UnitPlan& plan, F* v, const UnitContext<F>& context,
                                   UnitScales<F>& scales, BitsOf<F>& raw, F* codes,
                                   const Random& random) {
  switch (plan.spec.format) {
    case QuantFormat::kNvfp4:
      if (plan.spec.rounding == Rounding::kMsEden) {
        ms_eden_unit(plan, v, context, scales, raw, codes, random);
      } else if (plan.spec.amax == AmaxScope::kGroup128) {
        nvfp4_group_unit(plan, v, scales, raw, codes, random);
      } else {
        nvfp4_unit(plan, v, context, scales, raw, codes, random);
      }
      break;
    case QuantFormat::kMxfp4:
      mx_unit<ElementFormat::kE2m1>(plan, v, context, scales, raw, codes, random);
      break;
    case QuantFormat::kMxfp8E4m3:
      mx_unit<ElementFormat::kE4m3>(plan, v, context, scales, raw, codes, random);
      break;
    case QuantFormat::kMxfp8E5m2:
      mx_unit<ElementFormat::kE5m2>(plan, v, context, scales, raw, codes, random);
      break;
    case QuantFormat::kFp8E4m3:
      fp8_block_unit<ElementFormat::kE4m3>(plan, v, context, scales, raw, codes);
      break;
    case QuantFormat::kFp8E5m2:
      fp8_block_unit<ElementFormat::kE5m2>(plan, v, context, scales, raw, codes);
      break;
    case QuantFormat::kBf16:
      break;
  }
}

}  // namespace qstep::precision
