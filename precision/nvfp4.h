// NVFP4's scales (numerics 7.6; Transformer Engine's core_nvfp4.cuh): E2M1 elements, an E4M3 scale
// per block, one FP32 factor per tensor that goes into the GEMM's alpha.
//
//   S_enc = min(6 e4m3_max / amax, FLT_MAX), 1 where amax is 0 or infinite;   S_dec = 1 / S_enc
//   s     = e4m3(min(block_amax * fl(S_enc / 6), FLT_MAX))                    may be 0 or 448
//   enc   = min(1 / fl(s S_dec), FLT_MAX);      q = e2m1(fl(x enc))
//
// Every operation rounds once, in this order: another order changes bits.
#pragma once

#include "precision/element_format.h"

namespace qstep::precision {

inline constexpr float kMaxFloat = 0x1.fffffep127f;

// 6 e4m3_max, or 16/17 of it: room for block scales that round down.
QSTEP_HD inline float nvfp4_range(int e4m3_max, bool headroom) {
  const float full = 6.0f * static_cast<float>(e4m3_max);
  return headroom ? full * (16.0f / 17.0f) : full;
}

// What a block's amax is mapped to.
QSTEP_HD inline float nvfp4_target(bool headroom) {
  return headroom ? 6.0f * (16.0f / 17.0f) : 6.0f;
}

// The factors of a tensor, one float each, or of a row or group, in lanes.
template <class F>
struct Nvfp4Factors {
  F s_enc, s_dec, block_factor;  // block_factor = fl(S_enc / 6)
};

template <class F>
QSTEP_HD inline Nvfp4Factors<F> nvfp4_factors(F amax, float range, bool headroom) {
  const F one = all<F>(1.0f), zero = all<F>(0.0f);
  const F s = min(all<F>(range) / amax, all<F>(kMaxFloat));
  F s_enc = select(equal(amax, zero), one, s);
  s_enc = select(equal(s_enc, zero), one, s_enc);
  const float inverse = headroom ? 17.0f / 96.0f : 1.0f / 6.0f;
  return {s_enc, one / s_enc, s_enc * all<F>(inverse)};
}

template <class F>
struct BlockScale {
  F s;    // what is stored
  F enc;  // what elements are multiplied by
};

template <class F>
QSTEP_HD inline F nvfp4_encode_scale(F s, F s_dec) {
  return min(all<F>(1.0f) / (s * s_dec), all<F>(kMaxFloat));
}

template <class F>
QSTEP_HD inline BlockScale<F> nvfp4_block_scale(F block_amax, const Nvfp4Factors<F>& t) {
  const F s =
      round_nearest<ElementFormat::kE4m3>(min(block_amax * t.block_factor, all<F>(kMaxFloat)));
  return {s, nvfp4_encode_scale(s, t.s_dec)};
}

// The paper's order, fl(fl(block_amax / 6) S_enc): another recipe, other bits.
template <class F>
QSTEP_HD inline BlockScale<F> nvfp4_block_scale_two_rounding(F block_amax, const Nvfp4Factors<F>& t,
                                                             bool headroom) {
  const F s = round_nearest<ElementFormat::kE4m3>(
      min((block_amax / all<F>(nvfp4_target(headroom))) * t.s_enc, all<F>(kMaxFloat)));
  return {s, nvfp4_encode_scale(s, t.s_dec)};
}

}  // namespace qstep::precision
