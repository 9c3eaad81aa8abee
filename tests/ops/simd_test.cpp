#include "ops/simd/simd.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/ops/simd_cases.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::F32x16;
using ops::kLanes;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Floats of all kinds: any bits, moderate numbers, and the corners.
float any_float(Random& random) {
  static const float kCorners[] = {
      0.0f,      -0.0f,     1.0f,       -1.0f,           0.5f,      2.5f,       -3.5f,
      88.72f,    88.73f,    -87.34f,    -103.9f,         -104.5f,   1e30f,      -1e30f,
      0x1p-149f, 0x1p-126f, -0x1p-126f, 0x1.fffffep127f, kInfinity, -kInfinity, kNan};
  switch (random.bits() % 4) {
    case 0:
      return std::bit_cast<float>(random.bits());
    case 1:
      return kCorners[random.bits() % std::size(kCorners)];
    default:
      return static_cast<float>(random.uniform(-110, 110));
  }
}

bool same(float a, float b) {
  // The sign and payload of a NaN made from two NaNs depend on the order of operands a compiler
  // chooses.
  if (std::isnan(a) && std::isnan(b)) return true;
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

void expect_same_bits(const std::vector<SimdCase>& expected_body,
                      const std::vector<SimdCase>& found_body) {
  ASSERT_EQ(expected_body.size(), found_body.size());
  for (size_t op = 0; op < expected_body.size(); ++op) {
    const bool exponents = expected_body[op].inputs == SimdCase::Inputs::kExponents;
    Random random(1);
    for (int trial = 0; trial < 20000; ++trial) {
      float a[kLanes], b[kLanes], c[kLanes], expected[kLanes], found[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        a[i] = exponents ? static_cast<float>(random.integer(-127, 128)) : any_float(random);
        b[i] = exponents ? static_cast<float>(random.uniform(0.5, 2)) : any_float(random);
        c[i] = any_float(random);
      }
      expected_body[op].run(a, b, c, expected);
      found_body[op].run(a, b, c, found);
      for (int i = 0; i < kLanes; ++i) {
        ASSERT_TRUE(same(expected[i], found[i]))
            << expected_body[op].name << " lane " << i << " of " << a[i] << ", " << b[i] << ", "
            << c[i] << ": expected " << expected[i] << ", found " << found[i];
      }
    }
  }
}

TEST(Simd, EveryBodyGivesTheSameBits) {
  expect_same_bits(generic_simd_cases(), simd_cases());
  expect_same_bits(generic_simd_cases(), simd_256_cases());
}

float exp_of(float x) {
  float lanes[kLanes];
  ops::store(lanes, ops::exp(ops::broadcast(x)));
  return lanes[kLanes - 1];
}

// The distance between neighbours at y: 2^-149 for subnormal numbers.
double ulp(double y) { return std::max(std::ldexp(1.0, std::ilogb(y) - 23), 0x1p-149); }

TEST(Simd, ExpIsWithinOneUlp) {
  // Every 61st float between -104 and 88.72: all exponents, about 36 million.
  constexpr uint32_t kStride = 61;
  double largest = 0;
  for (const bool negative : {false, true}) {
    const float end = negative ? 104.0f : 88.72f;
    const auto n = static_cast<int64_t>(std::bit_cast<uint32_t>(end) / kStride / kLanes);
#pragma omp parallel for reduction(max : largest)
    for (int64_t group = 0; group < n; ++group) {
      float x[kLanes], y[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const auto bits = static_cast<uint32_t>(group * kLanes + i) * kStride;
        x[i] = negative ? -std::bit_cast<float>(bits) : std::bit_cast<float>(bits);
      }
      ops::store(y, ops::exp(ops::load(x)));
      for (int i = 0; i < kLanes; ++i) {
        const double expected = std::exp(static_cast<double>(x[i]));
        largest =
            std::max(largest, std::fabs(static_cast<double>(y[i]) - expected) / ulp(expected));
      }
    }
  }
  EXPECT_LE(largest, 1.0);
  RecordProperty("largest_error_ulp", std::to_string(largest));
}

TEST(Simd, ExpAtTheEnds) {
  EXPECT_EQ(exp_of(0.0f), 1.0f);
  EXPECT_EQ(exp_of(-0.0f), 1.0f);
  EXPECT_EQ(exp_of(kInfinity), kInfinity);
  EXPECT_EQ(exp_of(88.73f), kInfinity);
  EXPECT_EQ(exp_of(3e38f), kInfinity);
  EXPECT_EQ(exp_of(-kInfinity), 0.0f);
  EXPECT_EQ(exp_of(-104.5f), 0.0f);
  EXPECT_EQ(exp_of(-3e38f), 0.0f);
  EXPECT_TRUE(std::isnan(exp_of(kNan)));
  EXPECT_TRUE(std::isnan(exp_of(-kNan)));
}

TEST(Simd, SigmoidAndTanhWithinTheirBound) {
  constexpr double kBound = 0x1p-22;
  Random random(2);
  for (int trial = 0; trial < 100000; ++trial) {
    const double x = static_cast<double>(static_cast<float>(random.uniform(-100, 100)));
    const F32x16 lanes = ops::broadcast(static_cast<float>(x));
    float s[kLanes], t[kLanes];
    ops::store(s, ops::sigmoid(lanes));
    ops::store(t, ops::tanh(lanes));
    ASSERT_NEAR(static_cast<double>(s[0]), 1 / (1 + std::exp(-x)), kBound) << x;
    ASSERT_NEAR(static_cast<double>(t[0]), std::tanh(x), kBound) << x;
  }
}

TEST(Simd, PartsTouchOnlyTheirLanes) {
  for (int64_t n = 0; n < kLanes; ++n) {
    Guarded f(Dtype::kF32, 1, n), h(Dtype::kBf16, 1, n);
    ops::store_part(f.tensor().as<float>(), ops::broadcast(1.5f), n);
    ops::store_part(h.tensor().as<ops::Bf16>(), ops::broadcast(1.5f), n);
    f.expect_guards_intact("store_part of FP32");
    h.expect_guards_intact("store_part of BF16");
    const std::vector<double> expected(static_cast<size_t>(n), 1.5);
    EXPECT_EQ(f.values(), expected);
    EXPECT_EQ(h.values(), expected);
    const float sum = static_cast<float>(1.5 * static_cast<double>(n));
    EXPECT_EQ(ops::reduce_add(ops::load_part(f.tensor().as<float>(), n)), sum);
    EXPECT_EQ(ops::reduce_add(ops::load_part(h.tensor().as<ops::Bf16>(), n)), sum);
  }
}

TEST(Simd, SumGroupsAddsEveryElementOnce) {
  for (const int64_t n : {0, 1, 15, 16, 17, 63, 64, 65, 200, 1003}) {
    std::vector<float> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
    const float sum = ops::sum_groups(n, [&](F32x16 s, int64_t i, int64_t lanes) {
      return s + ops::load_n(x.data() + i, lanes);
    });
    EXPECT_EQ(sum, static_cast<float>(n * (n + 1) / 2));  // exact: below 2^24
  }
}

}  // namespace
}  // namespace qstep::test
