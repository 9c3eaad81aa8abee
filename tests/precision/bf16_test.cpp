// The conversion to BF16, on every one of the 2^32 floats.
#include "precision/bf16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tests/precision/all_floats.h"

#ifdef QSTEP_TEST_CUDA_BF16
#include <cuda_bf16.h>
#endif

namespace qstep::precision {
namespace {

using test::find_rejected;
using test::kNone;

// Rounds by what nearest-even means: of the two BF16 neighbours in magnitude the nearer, of two
// equally near the even one. Magnitudes are integers in units of 2^-149 as long as the exponent is
// fixed, so that the distance of a float to its neighbours is a difference of bit patterns; the
// step past the largest finite BF16 leads to infinity, as IEEE 754 has it.
uint16_t nearest_even(uint32_t bits) {
  const uint32_t sign = bits & 0x80000000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t below = magnitude & 0xFFFF0000u;
  const uint32_t above = below + 0x10000u;
  const uint32_t to_below = magnitude - below, to_above = above - magnitude;
  const uint32_t even = (below & 0x10000u) == 0 ? below : above;
  const uint32_t nearest = to_above < to_below ? above : to_above > to_below ? below : even;
  constexpr uint32_t kInfinityBits = 0x7F800000u;
  return static_cast<uint16_t>(magnitude > kInfinityBits ? 0x7FFFu : (sign | nearest) >> 16);
}

TEST(Bf16, RoundsEveryFloatToNearestEven) {
  const int64_t rejected = find_rejected(
      [](uint32_t bits) { return to_bf16(std::bit_cast<float>(bits)).bits == nearest_even(bits); });
  EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected;
}

#ifdef QSTEP_TEST_CUDA_BF16
TEST(Bf16, GivesTheBitsOfNvidiasConversionOnEveryFloat) {
  const int64_t rejected = find_rejected([](uint32_t bits) {
    const float x = std::bit_cast<float>(bits);
    return to_bf16(x).bits == __nv_bfloat16_raw(__float2bfloat16_rn(x)).x;
  });
  EXPECT_EQ(rejected, kNone) << std::hex << "0x" << rejected;
}
#endif

TEST(Bf16, WidensExactly) {
  for (uint32_t code = 0; code < 0x10000u; ++code) {
    const float x = to_float(Bf16{static_cast<uint16_t>(code)});
    EXPECT_EQ(std::bit_cast<uint32_t>(x), code << 16);
    if (!std::isnan(x)) {
      EXPECT_EQ(to_bf16(x).bits, code);
    }
  }
}

TEST(Bf16, ByHand) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3F80);
  EXPECT_EQ(to_bf16(0x1.01p0f).bits, 0x3F80);      // halfway, even below
  EXPECT_EQ(to_bf16(0x1.03p0f).bits, 0x3F82);      // halfway, even above
  EXPECT_EQ(to_bf16(0x1.010002p0f).bits, 0x3F81);  // just past halfway
  EXPECT_EQ(to_bf16(0x1.fep127f).bits, 0x7F7F);    // the largest finite one
  EXPECT_EQ(to_bf16(0x1.ffp127f).bits, 0x7F80);    // overflow
  EXPECT_EQ(to_bf16(-0x1p-149f).bits, 0x8000);     // underflow keeps the sign
  EXPECT_EQ(to_bf16(-std::numeric_limits<float>::infinity()).bits, 0xFF80);
  EXPECT_EQ(to_bf16(-std::numeric_limits<float>::quiet_NaN()).bits, 0x7FFF);
}

}  // namespace
}  // namespace qstep::precision
