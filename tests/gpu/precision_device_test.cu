// precision/ gives the same bits on the device as on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "precision/bf16.h"
#include "precision/e8m0.h"
#include "precision/element_format.h"
#include "precision/hadamard.h"
#include "precision/philox.h"
#include "precision/stochastic_rounding.h"
#include "tests/gpu/device_apply.h"

namespace qstep::precision {
namespace {

// What both sides compute: integers in and out, so that equal bits are equal values. A NaN would
// not survive a comparison of floats.
struct RoundToBf16 {
  using In = uint32_t;
  using Out = uint16_t;
  QSTEP_HD Out operator()(In bits) const { return to_bf16(std::bit_cast<float>(bits)).bits; }
};

struct WidenBf16 {
  using In = uint16_t;
  using Out = uint32_t;
  QSTEP_HD Out operator()(In code) const { return std::bit_cast<uint32_t>(to_float(Bf16{code})); }
};

// Both roundings of a format, as codes, and the code of the lower one decoded again.
template <ElementFormat kFormat>
struct RoundToFormat {
  using In = uint32_t;
  using Out = uint64_t;
  QSTEP_HD Out operator()(In pattern) const {
    const float x = from_bits(pattern);
    const uint8_t nearest = encode<kFormat>(round_nearest<kFormat>(x));
    const uint8_t toward_zero = encode<kFormat>(round_toward_zero<kFormat>(x));
    const uint32_t decoded = bits(decode<kFormat>(toward_zero));
    return Out{decoded} << 32 | uint32_t{nearest} << 8 | toward_zero;
  }
};
using RoundToE2m1 = RoundToFormat<ElementFormat::kE2m1>;
using RoundToE4m3 = RoundToFormat<ElementFormat::kE4m3>;
using RoundToE5m2 = RoundToFormat<ElementFormat::kE5m2>;

// The GPU's conversion of a pair to codes against the portable path, all on the device, for one
// half of the pair and the other; beside it a number that has nothing to do with it. Zero where
// they agree.
template <ElementFormat kFormat>
QSTEP_HD uint32_t conversion_differs(uint32_t pattern) {
  constexpr int kBits = kFormat == ElementFormat::kE2m1 ? 4 : 8;
  const float x = from_bits(pattern), other = from_bits(pattern * 0x9E3779B1u);
  const uint32_t code = encode<kFormat>(round_nearest<kFormat>(x));
  const uint32_t beside = encode<kFormat>(round_nearest<kFormat>(other));
  return (encode_nearest<kFormat>(x, other) ^ (code | beside << kBits)) |
         (encode_nearest<kFormat>(other, x) ^ (beside | code << kBits));
}

// The same for BF16, which has the formula on the host alone: the upper half, rounded by hand.
QSTEP_HD inline uint32_t bf16_differs(uint32_t pattern) {
  const bool nan = (pattern & 0x7FFFFFFFu) > 0x7F800000u;
  const uint32_t code = nan ? 0x7FFFu : (pattern + 0x7FFFu + (pattern >> 16 & 1u)) >> 16;
  const float x = from_bits(pattern);
  return (pack_bf16(x, 1.0f) ^ (code | 0x3F800000u)) |
         (pack_bf16(1.0f, x) ^ (code << 16 | 0x3F80u)) | (bits(round_to_bf16(x)) ^ code << 16);
}

// In 2^16 neighbouring floats: how many differ.
struct CountDifferences {
  using In = uint32_t;
  using Out = uint32_t;
  QSTEP_HD Out operator()(In upper) const {
    uint32_t count = 0;
    for (uint32_t lower = 0; lower < 0x10000u; ++lower) {
      const uint32_t pattern = upper << 16 | lower;
      const uint32_t differs = conversion_differs<ElementFormat::kE2m1>(pattern) |
                               conversion_differs<ElementFormat::kE4m3>(pattern) |
                               conversion_differs<ElementFormat::kE5m2>(pattern) |
                               bf16_differs(pattern);
      count += differs != 0 ? 1 : 0;
    }
    return count;
  }
};

// Both roundings, and the value and reciprocal of the lower one.
struct RoundToE8m0 {
  using In = uint32_t;
  using Out = PhiloxWords;
  QSTEP_HD Out operator()(In pattern) const {
    const float x = from_bits(pattern);
    const uint32_t down = e8m0_round_down(x);
    return {{e8m0_round_up(x), down, bits(e8m0_value<float>(down)),
             bits(e8m0_reciprocal<float>(down))}};
  }
};

// With random bits that follow from the input; to E4M3 the magnitude, as for scales.
struct RoundStochastically {
  using In = uint32_t;
  using Out = PhiloxWords;
  QSTEP_HD Out operator()(In pattern) const {
    const uint32_t word = philox4x32(11, {{pattern, 0, 0, 0}}).w[0];
    const float x = from_bits(pattern), a = magnitude(x);
    return {{bits(round_stochastic_e2m1(x, word & 0xFFu)), bits(round_stochastic_e2m1(x, 255u)),
             is_nan(x) ? 0u : bits(round_stochastic_e4m3(a, word)),
             is_nan(x) ? 0u : bits(round_stochastic_e4m3(a, 0xFFFFFFFFu))}};
  }
};

// Four floats and a word, for the GPU's own stochastic rounding.
struct HardwareInput {
  uint32_t x[4], word;
};
// In w[0] and w[1] the codes of the four by the instruction and by the host's model of it, in w[2]
// whether there is one.
struct RoundByHardware {
  using In = HardwareInput;
  using Out = PhiloxWords;
  QSTEP_HD static uint32_t codes_of(const float* v) {
    uint32_t codes = 0;
    for (int i = 0; i < 4; ++i) codes |= uint32_t{encode<ElementFormat::kE2m1>(v[i])} << (8 * i);
    return codes;
  }
  QSTEP_HD Out operator()(const In& in) const {
    float v[4], modelled[4];
    for (int i = 0; i < 4; ++i) v[i] = modelled[i] = from_bits(in.x[i]);
    model_round_four(modelled, in.word);
    if constexpr (!kHasHardwareRounder<float>) return {{0, codes_of(modelled), 0, 0}};
    round_four_by_hardware(v, in.word);
    return {{codes_of(v), codes_of(modelled), 1, 0}};
  }
};

struct PhiloxInput {
  uint64_t seed;
  PhiloxWords counter;
};

struct DrawPhilox {
  using In = PhiloxInput;
  using Out = PhiloxWords;
  QSTEP_HD Out operator()(const In& in) const { return philox4x32(in.seed, in.counter); }
};

bool same_bits(uint64_t a, uint64_t b) { return a == b; }
bool same_bits(const PhiloxWords& a, const PhiloxWords& b) {
  return std::equal(std::begin(a.w), std::end(a.w), std::begin(b.w));
}

template <class F>
void expect_same_bits(const char* what, const std::vector<typename F::In>& in) {
  const std::vector<typename F::Out> found = apply_on_device<F>(in);
  for (size_t i = 0; i < in.size(); ++i) {
    ASSERT_TRUE(same_bits(found[i], F()(in[i]))) << what << ", input " << i;
  }
}

// Every upper half of a float with the lower halves around the points where rounding changes, and
// floats from all over.
std::vector<uint32_t> float_patterns() {
  constexpr uint32_t kLowerHalves[] = {0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
  constexpr uint32_t kRandomDraws = 1 << 18;
  std::vector<uint32_t> patterns;
  for (uint32_t upper = 0; upper < 0x10000u; ++upper) {
    for (const uint32_t lower : kLowerHalves) patterns.push_back(upper << 16 | lower);
  }
  for (uint32_t i = 0; i < kRandomDraws; ++i) {
    for (const uint32_t word : philox4x32(2026, {{i, 0, 0, 0}}).w) patterns.push_back(word);
  }
  return patterns;
}

std::vector<uint16_t> bf16_codes() {
  std::vector<uint16_t> codes;
  for (uint32_t code = 0; code < 0x10000u; ++code) codes.push_back(static_cast<uint16_t>(code));
  return codes;
}

std::vector<PhiloxInput> philox_inputs() {
  constexpr uint32_t kOnes = 0xFFFFFFFFu, kRandomDraws = 1 << 16;
  std::vector<PhiloxInput> inputs = {{0, {{0, 0, 0, 0}}},
                                     {~uint64_t{0}, {{kOnes, kOnes, kOnes, kOnes}}}};
  for (uint32_t i = 0; i < kRandomDraws; ++i) {
    const PhiloxWords seed = philox4x32(7, {{i, 0, 0, 0}});
    inputs.push_back({uint64_t{seed.w[1]} << 32 | seed.w[0], philox4x32(7, {{i, 1, 0, 0}})});
  }
  return inputs;
}

TEST(PrecisionOnDevice, SameBitsAsOnTheHostOrACleanRefusal) {
  const std::string why = why_no_device<RoundToBf16>();
  if (!why.empty()) {
    std::printf("%s\n", why.c_str());
    apply<WidenBf16><<<1, 1>>>(nullptr, nullptr, 0);
    EXPECT_NE(cudaGetLastError(), cudaSuccess) << "a kernel started although there is " << why;
    return;
  }
  expect_same_bits<RoundToBf16>("to_bf16", float_patterns());
  expect_same_bits<WidenBf16>("to_float", bf16_codes());
  expect_same_bits<RoundToE2m1>("E2M1", float_patterns());
  expect_same_bits<RoundToE4m3>("E4M3", float_patterns());
  expect_same_bits<RoundToE5m2>("E5M2", float_patterns());
  expect_same_bits<RoundToE8m0>("E8M0", float_patterns());
  std::vector<uint32_t> upper_halves(0x10000u);
  std::iota(upper_halves.begin(), upper_halves.end(), 0u);
  const std::vector<uint32_t> differing = apply_on_device<CountDifferences>(upper_halves);
  EXPECT_EQ(std::accumulate(differing.begin(), differing.end(), uint64_t{0}), 0u)
      << "of all 2^32 floats the GPU's conversions give other codes";
  expect_same_bits<RoundStochastically>("stochastic rounding", float_patterns());
  expect_same_bits<DrawPhilox>("philox4x32", philox_inputs());
}

// Code i of what RoundByHardware gives.
float value_of(uint32_t codes, int i) {
  return decode<ElementFormat::kE2m1>(static_cast<uint8_t>(codes >> (8 * i)));
}

// What PTX ISA says of cvt.rs: one of the two neighbours; a number of the grid stays; the sign
// stays; the first two numbers depend on the lower bytes of both halves of the word alone and the
// others on the upper ones; up as often as the fraction says, to one part in 256 of a step
// (numerics 4.2), the most that eight bits allow, and five standard deviations of the draws.
TEST(PrecisionOnDevice, TheHardwareRoundsAsItsManualSays) {
  if (const std::string why = why_no_device<RoundByHardware>(); !why.empty()) {
    GTEST_SKIP() << "needs a GPU: " << why;
  }
  if (apply_on_device<RoundByHardware>({{}})[0].w[2] == 0) {
    GTEST_SKIP() << "needs compute capability 10.0 or 10.3, in code for sm_100a or sm_103a";
  }
  constexpr int kDraws = 4096, kFractions = 64;
  int64_t as_modelled = 0, rounded = 0;
  for (int f = 0; f < kFractions; ++f) {
    // The four numbers lie in four steps of the grid: 0 to 1/2, 1 to 3/2, 2 to 3, 4 to 6.
    const float fraction = static_cast<float>(f) / kFractions;
    const float lower[4] = {0.0f, 1.0f, 2.0f, 4.0f}, step[4] = {0.5f, 0.5f, 1.0f, 2.0f};
    std::vector<HardwareInput> in;
    for (uint32_t draw = 0; draw < kDraws; ++draw) {
      HardwareInput one{.x = {},
                        .word = philox4x32(5, {{draw, static_cast<uint32_t>(f), 0, 0}}).w[0]};
      for (int i = 0; i < 4; ++i) {
        const float x = lower[i] + fraction * step[i];
        one.x[i] = bits(draw % 2 == 0 ? x : -x);
      }
      in.push_back(one);
      one.word ^= 0xFF00FF00u;  // the bytes of the last two
      in.push_back(one);
      one.word ^= 0xFFFFFFFFu;  // those of the first two instead
      in.push_back(one);
    }
    const std::vector<PhiloxWords> out = apply_on_device<RoundByHardware>(in);
    int ups[4] = {};
    for (size_t at = 0; at < out.size(); ++at) {
      const bool negative = in[at].x[0] >> 31 != 0;
      for (int i = 0; i < 4; ++i) {
        const float found = value_of(out[at].w[0], i), size = negative ? -found : found;
        ASSERT_EQ(negative, std::signbit(found));
        ASSERT_TRUE(size == lower[i] || (f > 0 && size == lower[i] + step[i]))
            << found << " of " << from_bits(in[at].x[i]);
        if (at % 3 == 0) ups[i] += size != lower[i] ? 1 : 0;
      }
      as_modelled += out[at].w[0] == out[at].w[1] ? 1 : 0;
      ++rounded;
    }
    for (size_t at = 0; at < out.size(); at += 3) {
      const uint32_t last_changed = out[at].w[0] ^ out[at + 1].w[0];
      const uint32_t first_changed = out[at].w[0] ^ out[at + 2].w[0];
      ASSERT_EQ(0u, last_changed & 0x0000FFFFu) << "the first two read the bytes of the others";
      ASSERT_EQ(0u, first_changed & 0xFFFF0000u) << "the last two read the bytes of the others";
    }
    const double deviation = std::sqrt(0.25 / kDraws);
    for (int i = 0; i < 4; ++i) {
      EXPECT_NEAR(static_cast<double>(ups[i]) / kDraws, static_cast<double>(fraction),
                  1.0 / 256 + 5 * deviation)
          << lower[i];
    }
  }
  const PhiloxWords ends = apply_on_device<RoundByHardware>(
      {{{bits(7.0f), bits(-1e30f), 0x7F800000u, 0x7FC00000u}, 0xFFFFFFFFu}})[0];
  EXPECT_EQ(ends.w[0], 0x07070F07u) << "beyond the largest, infinity, NaN";
  // Not said by the manual: whether each number has a byte of its own, in the model's order.
  std::printf("%lld of %lld groups of four have the codes of the host's model\n",
              static_cast<long long>(as_modelled), static_cast<long long>(rounded));
}

}  // namespace
}  // namespace qstep::precision
