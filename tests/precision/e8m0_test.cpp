// E8M0 on every one of the 2^32 floats: against the tests' reference, and against NVIDIA's
// conversion where its header is installed.
#include "precision/e8m0.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/precision/all_floats.h"
#include "tests/support/quant_reference_formats.h"

#ifdef QSTEP_TEST_CUDA_FP4
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

// The codes go up with |x|.
template <class Reference, class Product>
void expect_equal_on_every_float(Reference&& expected, Product&& found) {
  for_each_interval(expected, [&](uint32_t first, uint32_t beyond, uint32_t code) {
    for (const uint32_t sign : {0u, kSignBit}) {
      const int64_t rejected = find_rejected(
          sign + uint64_t{first}, sign + uint64_t{beyond},
          [&](uint32_t pattern) { return found(std::bit_cast<float>(pattern)) == code; });
      EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected << " is not code 0x" << code;
    }
  });
  for (const uint32_t sign : {0u, kSignBit}) {
    EXPECT_EQ(find_rejected(
                  sign + uint64_t{kInfinityBits} + 1, uint64_t{sign} + kSignBit,
                  [&](uint32_t pattern) { return found(std::bit_cast<float>(pattern)) == 255u; }),
              kNone);
  }
}

TEST(E8m0, RoundsEveryFloatUp) {
  expect_equal_on_every_float([](float x) { return reference::e8m0_up(x); },
                              [](float x) { return e8m0_round_up(x); });
}

TEST(E8m0, RoundsEveryFloatDown) {
  expect_equal_on_every_float([](float x) { return reference::e8m0_down(x); },
                              [](float x) { return e8m0_round_down(x); });
}

TEST(E8m0, ValueAndReciprocalOfEveryCode) {
  for (uint32_t code = 0; code < 255; ++code) {
    const double value = reference::e8m0_value(static_cast<uint8_t>(code));
    EXPECT_EQ(static_cast<double>(e8m0_value<float>(code)), value) << code;
    EXPECT_EQ(static_cast<double>(e8m0_reciprocal<float>(code)), 1.0 / value) << code;
  }
  EXPECT_TRUE(std::isnan(e8m0_value<float>(255)));
  EXPECT_TRUE(std::isnan(e8m0_reciprocal<float>(255)));
}

// The rows of numerics 3.4.
TEST(E8m0, ByHand) {
  const float above_one = std::nextafter(1.0f, 2.0f), infinity = INFINITY;
  EXPECT_EQ(e8m0_round_up(0.0f), 0x00u);
  EXPECT_EQ(e8m0_round_up(0x1p-127f), 0x00u);
  EXPECT_EQ(e8m0_round_up(std::nextafter(0x1p-127f, 1.0f)), 0x01u);
  EXPECT_EQ(e8m0_round_up(1.0f), 0x7Fu);
  EXPECT_EQ(e8m0_round_up(above_one), 0x80u);
  EXPECT_EQ(e8m0_round_up(-2.0f), 0x80u);
  EXPECT_EQ(e8m0_round_up(std::numeric_limits<float>::max()), 0xFEu);
  EXPECT_EQ(e8m0_round_up(infinity), 0xFEu);
  EXPECT_EQ(e8m0_round_down(std::nextafter(0x1p-127f, 1.0f)), 0x00u);
  EXPECT_EQ(e8m0_round_down(above_one), 0x7Fu);
  EXPECT_EQ(e8m0_round_down(1.5f), 0x7Fu);
  EXPECT_EQ(e8m0_round_down(infinity), 0xFEu);
}

#ifdef QSTEP_TEST_CUDA_FP4
TEST(E8m0, GivesTheBitsOfNvidiasConversionOnEveryFloat) {
  EXPECT_EQ(find_rejected([](uint32_t pattern) {
              const float x = std::bit_cast<float>(pattern);
              return e8m0_round_up(x) == __nv_cvt_float_to_e8m0(x, __NV_SATFINITE, cudaRoundPosInf);
            }),
            kNone);
  EXPECT_EQ(find_rejected([](uint32_t pattern) {
              const float x = std::bit_cast<float>(pattern);
              return e8m0_round_down(x) == __nv_cvt_float_to_e8m0(x, __NV_SATFINITE, cudaRoundZero);
            }),
            kNone);
}
#endif

}  // namespace
}  // namespace qstep::precision
