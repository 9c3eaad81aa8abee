// The quantizers of precision/quantize_unit.h give the same bits on the device as on the host.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include "precision/quantize_unit.h"
#include "tests/gpu/device_apply.h"

namespace qstep::precision {
namespace {

// A unit's plan by number, on both sides: every format, rounding and transform.
constexpr int kPlans = 19;

QSTEP_HD UnitPlan plan_of(int which) {
  UnitPlan plan;
  QuantSpec& spec = plan.spec;
  spec.format = QuantFormat::kNvfp4;
  spec.block = {1, 16};
  spec.scale = ScaleRule::kE4m3;
  switch (which) {
    case 1:
      spec.rounding = Rounding::kStochastic;
      break;
    case 2:
      spec.hadamard = 16;
      break;
    case 3:
      spec.four_over_six = FourOverSix::kMae;
      spec.e4m3_max = 256;
      break;
    case 4:
      spec.scale = ScaleRule::kE4m3TwoRounding;
      break;
    case 5:
      spec.hadamard = 128;
      spec.rounding = Rounding::kMsEden;
      break;
    case 6:
      spec.amax = AmaxScope::kGroup128;
      spec.rounding = Rounding::kStochastic;
      break;
    case 7:
      spec.format = QuantFormat::kMxfp8E4m3;
      break;
    case 8:
      spec.format = QuantFormat::kMxfp8E5m2;
      break;
    case 9:
      spec.format = QuantFormat::kMxfp4;
      spec.hadamard = 64;
      spec.headroom = Headroom::kThreeQuarters;
      spec.rounding = Rounding::kStochastic;
      break;
    case 10:
      spec.format = QuantFormat::kFp8E4m3;
      break;
    case 11:
      spec.format = QuantFormat::kFp8E5m2;
      break;
    case 12:
      spec.four_over_six = FourOverSix::kMse;
      break;
    case 13:
      spec.four_over_six = FourOverSix::kAbsMax;
      spec.e4m3_max = 256;
      break;
    case 14:
      spec.hadamard = 32;
      spec.rounding = Rounding::kStochastic;
      break;
    case 15:
      spec.amax = AmaxScope::kRow;
      break;
    case 16:
      spec.block = {16, 16};
      break;
    case 17:
      spec.format = QuantFormat::kMxfp8E4m3;
      break;
    case 18:
      spec.format = QuantFormat::kFp8E4m3;
      break;
    default:
      break;
  }
  if (which >= 7 && which <= 9) {
    spec.block = {1, 32};
    spec.scale = which == 9 ? ScaleRule::kPow2Floor : ScaleRule::kPow2Up;
  }
  if (which == 17) {
    spec.block = {32, 32};
    spec.scale = ScaleRule::kPow2Up;
  }
  if (which == 18) {
    spec.block = {128, 128};
    spec.scale = ScaleRule::kFp32;
  }
  if (which == 10 || which == 11) {
    spec.block = {1, 128};
    spec.scale = which == 10 ? ScaleRule::kFp32 : ScaleRule::kFp32Pow2;
  }
  plan.signs = fixed_signs();
  plan.range = nvfp4_range(spec.e4m3_max, false);
  plan.seed = 77;
  plan.step = 5;
  plan.element_stream = random_stream(RandomPurpose::kElements, 0, 2, 9);
  plan.scale_stream = random_stream(RandomPurpose::kScales, 0, 2, 9);
  return plan;
}

// numerics 4.3 for one lane.
struct OneLaneRandom {
  const UnitPlan& plan;
  uint64_t first;  // element index, a multiple of 16

  QSTEP_HD PhiloxWords call(uint64_t counter, uint32_t stream) const {
    return philox4x32(plan.seed, {{static_cast<uint32_t>(counter),
                                   static_cast<uint32_t>(counter >> 32), stream, plan.step}});
  }
  QSTEP_HD RandomWords<float> operator()(int block, uint32_t stream) const {
    const PhiloxWords words = call(first / 16 + static_cast<uint64_t>(block), stream);
    return {{words.w[0], words.w[1], words.w[2], words.w[3]}};
  }
  QSTEP_HD uint32_t scale_word(int block, uint32_t stream) const {
    const uint64_t index = first / 16 + static_cast<uint64_t>(block);
    return call(index / 4, stream).w[index % 4];
  }
};

struct UnitInput {
  int which;
  uint64_t first;
  uint32_t v[kMaxUnit];
};
struct UnitOutput {
  uint32_t v[kMaxUnit];
  uint32_t scales[kMaxUnitBlocks];
};

struct QuantizeUnit {
  using In = UnitInput;
  using Out = UnitOutput;
  QSTEP_HD Out operator()(const In& in) const {
    const UnitPlan plan = plan_of(in.which);
    const bool eden = plan.spec.rounding == Rounding::kMsEden;
    // Of a row: another one for every unit.
    const float row_amax = 1.0f + static_cast<float>(in.first / kMaxUnit % 64) * 0x1p-5f;
    const float amax = plan.spec.amax == AmaxScope::kRow ? row_amax : 6.0f;
    UnitContext<float> context{};
    context.block_amax = 1.75f;  // of a square block that other units are part of
    context.outer_amax = eden ? ms_eden_factor(amax) : amax;
    context.outer = nvfp4_factors(amax, plan.range, false);
    UnitScales<float> scales{};
    float v[kMaxUnit];
    for (int i = 0; i < kMaxUnit; ++i) v[i] = from_bits(in.v[i]);
    hadamard_unit<kMaxUnit>(plan, v);
    uint32_t raw = 0;
    float* const no_codes = nullptr;
    quantize_unit<kMaxUnit>(plan, v, context, scales, raw, no_codes, OneLaneRandom{plan, in.first});
    Out out{};
    for (int i = 0; i < kMaxUnit; ++i) out.v[i] = bits(v[i]);
    for (int b = 0; b < kMaxUnitBlocks; ++b) out.scales[b] = bits(scales.block[b]);
    return out;
  }
};

// Sums of uniform numbers times powers of two, with zeros, and now and then a NaN or an infinity.
std::vector<UnitInput> units() {
  constexpr uint32_t kUnits = 4096;
  std::vector<UnitInput> in(kUnits);
  for (uint32_t u = 0; u < kUnits; ++u) {
    in[u].which = static_cast<int>(u % kPlans);
    in[u].first = uint64_t{u} << 7;
    for (uint32_t i = 0; i < kMaxUnit; ++i) {
      const PhiloxWords w = philox4x32(3, {{u, i, 0, 0}});
      float x = (to_number(w.w[0] >> 8) + to_number(w.w[1] >> 8)) * 0x1p-24f - 1.0f;
      if (w.w[2] % 16 == 0) x *= 0x1p-20f;
      if (w.w[2] % 17 == 0) x = -0.0f;
      if (u % 64 == 63 && i == u / 64)
        x = w.w[3] % 2 == 0 ? from_bits(0x7F800000u) : -not_a_number<float>();
      in[u].v[i] = bits(round_to_bf16(x));
    }
  }
  return in;
}

TEST(QuantizeOnDevice, SameBitsAsOnTheHostOrACleanRefusal) {
  const std::vector<UnitInput> in = units();
  const std::string why = why_no_device<QuantizeUnit>();
  if (!why.empty()) {
    std::printf("%s\n", why.c_str());
    apply<QuantizeUnit><<<1, 1>>>(nullptr, nullptr, 0);
    EXPECT_NE(cudaGetLastError(), cudaSuccess) << "a kernel started although there is " << why;
    return;
  }
  const std::vector<UnitOutput> found = apply_on_device<QuantizeUnit>(in);
  for (size_t u = 0; u < in.size(); ++u) {
    const UnitOutput expected = QuantizeUnit()(in[u]);
    ASSERT_EQ(std::memcmp(&found[u], &expected, sizeof(UnitOutput)), 0)
        << "plan " << in[u].which << ", unit " << u;
  }
}

}  // namespace
}  // namespace qstep::precision
