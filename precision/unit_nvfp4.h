// A unit of NVFP4 under any of its rules: one factor per tensor or row, per 1x128, 4/6, MS-EDEN.
#pragma once

#include <type_traits>

#include "precision/four_over_six.h"
#include "precision/ms_eden.h"
#include "precision/unit_rounding.h"

namespace qstep::precision {

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
      round_block_stochastic(x, own[b].raw, scales.enc[b], scales.block[b],
                             StochasticBlock<F>{plan.rounder, 1.0f, random(b, plan.element_stream)},
                             q);
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
      round_block_stochastic(v + 16 * b, block[b].raw, enc, s,
                             StochasticBlock<F>{plan.rounder, 1.0f, random(b, plan.element_stream)},
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

}  // namespace qstep::precision
