#include "ops/simd/simd_lanes.h"

#include <gtest/gtest.h>

#include "precision/quantize_unit.h"
#include "tests/support/compare.h"

// The templates of precision/ at sixteen lanes and at one give the same bits.
namespace qstep::test {
namespace {

using ops::F32x16;
using ops::U32x16;
using precision::ElementFormat;
using precision::kMaxFloat;
using precision::magnitude;

struct Inputs {
  alignas(64) uint32_t a[16], b[16];
  F32x16 numbers() const { return ops::from_bits(ops::load_bits(a)); }
  U32x16 words() const { return ops::load_bits(b); }
};

// Floats of any bits, or of moderate size.
Inputs draw(Random& random, bool moderate) {
  Inputs in;
  for (int i = 0; i < 16; ++i) {
    in.a[i] = moderate ? (random.bits() & 0x83FFFFFFu) | 0x3E000000u : random.bits();
    in.b[i] = random.bits();
  }
  return in;
}

template <class F>
void expect_lanes(const Inputs& in, F32x16 found, F&& one_lane, const char* what) {
  alignas(64) uint32_t lane[16];
  ops::store_bits(lane, ops::bits(found));
  for (int i = 0; i < 16; ++i) {
    const float expected = one_lane(precision::from_bits(in.a[i]), in.b[i]);
    ASSERT_EQ(lane[i], precision::bits(expected)) << what << " of bits " << in.a[i];
  }
}

TEST(SimdLanes, SixteenLanesGiveTheBitsOfOne) {
  Random random(11);
  for (int trial = 0; trial < 100000; ++trial) {
    const Inputs in = draw(random, trial % 2 == 1);
    const F32x16 x = in.numbers();
    const auto compare = [&](F32x16 found, auto&& one_lane, const char* what) {
      expect_lanes(in, found, one_lane, what);
    };
    const auto rounded = [](auto v) {
      return precision::round_nearest<ElementFormat::kE2m1>(v) +
             precision::round_nearest<ElementFormat::kE4m3>(v) *
                 precision::round_toward_zero<ElementFormat::kE5m2>(v);
    };
    compare(
        rounded(x), [&](float v, uint32_t) { return rounded(v); }, "rounding");
    compare(
        precision::round_stochastic_e2m1(x, in.words() & ops::broadcast_bits(255)),
        [](float v, uint32_t w) { return precision::round_stochastic_e2m1(v, w & 255u); },
        "stochastic e2m1");
    compare(
        precision::round_stochastic_e4m3(magnitude(x), in.words()),
        [](float v, uint32_t w) {
          return precision::round_stochastic_e4m3(precision::magnitude(v), w);
        },
        "stochastic e4m3");
    compare(
        precision::round_to_bf16(x), [](float v, uint32_t) { return precision::round_to_bf16(v); },
        "bf16");
    const auto mx = [](auto v) {
      using F = decltype(v);
      return precision::e8m0_value<F>(precision::mx_scale_up<ElementFormat::kE4m3>(v)) +
             precision::e8m0_reciprocal<F>(precision::mx_scale_floor<ElementFormat::kE5m2>(v));
    };
    compare(
        mx(x), [&](float v, uint32_t) { return mx(v); }, "mx scales");
    const auto nvfp4 = [](auto v) {
      const auto t = precision::nvfp4_factors(magnitude(v), 2688.0f, true);
      return precision::nvfp4_block_scale(magnitude(v), t).enc + t.s_dec;
    };
    compare(
        nvfp4(x), [&](float v, uint32_t) { return nvfp4(v); }, "nvfp4 scales");
    const auto fp8 = [](auto v) {
      return precision::fp8_scale(magnitude(v), 448.0f, kMaxFloat, false) +
             precision::fp8_scale(magnitude(v), 448.0f, kMaxFloat, true);
    };
    compare(
        fp8(x), [&](float v, uint32_t) { return fp8(v); }, "fp8 scales");
    compare(
        ops::from_bits(precision::random_words<F32x16>(77, in.words(), in.words(), 3, 4).w[2]),
        [](float, uint32_t w) {
          return precision::from_bits(precision::philox4x32(77, {{w, w, 3, 4}}).w[2]);
        },
        "philox");
  }
}

}  // namespace
}  // namespace qstep::test
