// E2M1, E4M3 and E5M2 on every one of the 2^32 floats: against the tables of the tests' reference,
// and against NVIDIA's conversions where their headers are installed.
#include "precision/element_format.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "tests/precision/all_floats.h"
#include "tests/support/quant_reference_formats.h"

#ifdef QSTEP_TEST_CUDA_FP4
#include <cuda_fp4.h>
#endif
#ifdef QSTEP_TEST_CUDA_FP8
#include <cuda_fp8.h>
#endif

namespace qstep::precision {
namespace {

using test::find_rejected;
using test::for_each_interval;
using test::kInfinityBits;
using test::kNone;
using test::kSignBit;
namespace reference = test::reference;

template <class T>
class ElementFormats : public testing::Test {};

template <ElementFormat kFormat>
struct Case {
  static constexpr ElementFormat format = kFormat;
  static const reference::Format& table() {
    return kFormat == ElementFormat::kE2m1   ? reference::e2m1()
           : kFormat == ElementFormat::kE4m3 ? reference::e4m3()
                                             : reference::e5m2();
  }
};
using Cases = testing::Types<Case<ElementFormat::kE2m1>, Case<ElementFormat::kE4m3>,
                             Case<ElementFormat::kE5m2>>;

struct CaseNames {
  template <class T>
  static std::string GetName(int) {
    return T::format == ElementFormat::kE2m1   ? "E2m1"
           : T::format == ElementFormat::kE4m3 ? "E4m3"
                                               : "E5m2";
  }
};
TYPED_TEST_SUITE(ElementFormats, Cases, CaseNames);

// Rounding is monotone: on each interval of one code of the reference the product must give that
// one value.
template <class Reference, class Product>
void expect_equal_on_every_number(const reference::Format& table, Reference&& code_of,
                                  Product&& value_of) {
  std::set<uint8_t> seen;
  for_each_interval(code_of, [&](uint32_t first, uint32_t beyond, uint8_t code) {
    seen.insert(code);
    const uint32_t expected = std::bit_cast<uint32_t>(reference::value(table, code));
    for (const uint32_t sign : {0u, kSignBit}) {
      const int64_t rejected =
          find_rejected(sign + uint64_t{first}, sign + uint64_t{beyond}, [&](uint32_t pattern) {
            return std::bit_cast<uint32_t>(value_of(std::bit_cast<float>(pattern))) ==
                   (expected | sign);
          });
      EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected << " is not code 0x" << +code;
    }
  });
  EXPECT_EQ(seen.size(), table.values.size());
}

template <class Product>
void expect_nan_on_every_nan(const reference::Format& table, Product&& code_of) {
  for (const uint32_t sign : {0u, kSignBit}) {
    const int64_t rejected = find_rejected(
        sign + uint64_t{kInfinityBits} + 1, uint64_t{sign} + kSignBit,
        [&](uint32_t pattern) { return code_of(std::bit_cast<float>(pattern)) == table.nan; });
    EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected;
  }
}

TYPED_TEST(ElementFormats, RoundsEveryFloatToTheNearest) {
  constexpr ElementFormat kFormat = TypeParam::format;
  expect_equal_on_every_number(
      TypeParam::table(), [](float x) { return reference::nearest(TypeParam::table(), x); },
      [](float x) { return round_nearest<kFormat>(x); });
  expect_nan_on_every_nan(TypeParam::table(),
                          [](float x) { return encode<kFormat>(round_nearest<kFormat>(x)); });
}

TYPED_TEST(ElementFormats, RoundsEveryFloatTowardZero) {
  constexpr ElementFormat kFormat = TypeParam::format;
  expect_equal_on_every_number(
      TypeParam::table(), [](float x) { return reference::toward_zero(TypeParam::table(), x); },
      [](float x) { return round_toward_zero<kFormat>(x); });
  expect_nan_on_every_nan(TypeParam::table(),
                          [](float x) { return encode<kFormat>(round_toward_zero<kFormat>(x)); });
}

// What a quantizer uses where it knows that a whole block is free of NaN and of what overflows.
TYPED_TEST(ElementFormats, TheTameFormGivesTheSameBits) {
  constexpr ElementFormat kFormat = TypeParam::format;
  const uint32_t beyond = std::bit_cast<uint32_t>(kOverflow<kFormat>);
  for (const uint32_t sign : {0u, kSignBit}) {
    const int64_t rejected = find_rejected(sign, uint64_t{sign} + beyond, [](uint32_t pattern) {
      const float x = std::bit_cast<float>(pattern);
      return bits(round_nearest_tame<kFormat>(x)) == bits(round_nearest<kFormat>(x));
    });
    EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected;
  }
}

// Both halves of a pair, from every upper half of a float and what lies around the ties.
TYPED_TEST(ElementFormats, PairsHoldTheCodeOfTheNearest) {
  constexpr ElementFormat kFormat = TypeParam::format;
  constexpr int kBits = kFormat == ElementFormat::kE2m1 ? 4 : 8;
  for (uint32_t upper = 0; upper < 0x10000u; ++upper) {
    for (const uint32_t lower : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const float x = from_bits(upper << 16 | lower), y = from_bits(bits(x) * 0x9E3779B1u);
      const uint32_t low = encode<kFormat>(round_nearest<kFormat>(x));
      const uint32_t high = encode<kFormat>(round_nearest<kFormat>(y));
      ASSERT_EQ(encode_nearest<kFormat>(x, y), low | high << kBits) << x << ", " << y;
    }
  }
}

TYPED_TEST(ElementFormats, DecodesAndEncodesEveryCode) {
  constexpr ElementFormat kFormat = TypeParam::format;
  const reference::Format& table = TypeParam::table();
  for (uint32_t code = 0; code < 2u * table.sign; ++code) {
    const float expected = reference::value(table, static_cast<uint8_t>(code));
    const float found = decode<kFormat>(static_cast<uint8_t>(code));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(found)) << code;
      EXPECT_EQ(encode<kFormat>(found), 0x7F);
      continue;
    }
    EXPECT_EQ(std::bit_cast<uint32_t>(found), std::bit_cast<uint32_t>(expected)) << code;
    if (std::isfinite(expected)) {
      EXPECT_EQ(encode<kFormat>(found), code);
    }
  }
  // The bits above a narrow format's are not looked at.
  EXPECT_EQ(decode<ElementFormat::kE2m1>(0xF9), -0.5f);
}

TYPED_TEST(ElementFormats, StatesItsLimits) {
  constexpr ElementTraits t = kElement<TypeParam::format>;
  const reference::Format& table = TypeParam::table();
  EXPECT_EQ(t.max, table.max());
  EXPECT_EQ(t.emax, table.emax);
  EXPECT_EQ(t.min_normal, table.values[size_t{1} << t.mantissa_bits]);
}

TEST(ElementFormat, ByHand) {
  const auto e2m1 = [](float x) { return round_nearest<ElementFormat::kE2m1>(x); };
  // Numerics 3.1: ties.
  EXPECT_EQ(e2m1(0.25f), 0.0f);
  EXPECT_EQ(e2m1(0.75f), 1.0f);
  EXPECT_EQ(e2m1(1.25f), 1.0f);
  EXPECT_EQ(e2m1(2.5f), 2.0f);
  EXPECT_EQ(e2m1(3.5f), 4.0f);
  EXPECT_EQ(e2m1(5.0f), 4.0f);
  EXPECT_EQ(e2m1(1e30f), 6.0f);
  EXPECT_EQ(e2m1(-std::numeric_limits<float>::quiet_NaN()), 6.0f);
  EXPECT_EQ(encode<ElementFormat::kE2m1>(e2m1(-0.0f)), 0x8);
  // 3.2, 3.3: the largest values.
  EXPECT_EQ(round_nearest<ElementFormat::kE4m3>(465.0f), 448.0f);
  EXPECT_EQ(encode<ElementFormat::kE4m3>(448.0f), 0x7E);
  EXPECT_EQ(round_nearest<ElementFormat::kE4m3>(0x1p-10f), 0.0f);
  EXPECT_EQ(round_nearest<ElementFormat::kE5m2>(61440.0f), 57344.0f);
  EXPECT_EQ(encode<ElementFormat::kE5m2>(-57344.0f), 0xFB);
}

#ifdef QSTEP_TEST_CUDA_FP4
TEST(ElementFormat, E2m1GivesTheBitsOfNvidiasConversionOnEveryFloat) {
  constexpr ElementFormat kFormat = ElementFormat::kE2m1;
  EXPECT_EQ(find_rejected([](uint32_t pattern) {
              const float x = std::bit_cast<float>(pattern);
              return encode<kFormat>(round_nearest<kFormat>(x)) ==
                     __nv_cvt_float_to_fp4(x, __NV_E2M1, cudaRoundNearest);
            }),
            kNone);
  EXPECT_EQ(find_rejected([](uint32_t pattern) {
              const float x = std::bit_cast<float>(pattern);
              return encode<kFormat>(round_toward_zero<kFormat>(x)) ==
                     __nv_cvt_float_to_fp4(x, __NV_E2M1, cudaRoundZero);
            }),
            kNone);
}
#endif

#ifdef QSTEP_TEST_CUDA_FP8
TEST(ElementFormat, Fp8GivesTheBitsOfNvidiasConversionOnEveryFloat) {
  EXPECT_EQ(find_rejected([](uint32_t pattern) {
              constexpr ElementFormat kFormat = ElementFormat::kE4m3;
              const float x = std::bit_cast<float>(pattern);
              return encode<kFormat>(round_nearest<kFormat>(x)) ==
                     __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
            }),
            kNone);
  EXPECT_EQ(find_rejected([](uint32_t pattern) {
              constexpr ElementFormat kFormat = ElementFormat::kE5m2;
              const float x = std::bit_cast<float>(pattern);
              return encode<kFormat>(round_nearest<kFormat>(x)) ==
                     __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
            }),
            kNone);
}
#endif

}  // namespace
}  // namespace qstep::precision
