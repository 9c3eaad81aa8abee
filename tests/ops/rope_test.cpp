#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace qstep::ops {
namespace {

using test::Guarded;
using test::Random;
using Values = std::vector<double>;

struct Rotated {
  Values x;
  Values bound;
};

// The rotation in FP64, by the angles of an FP32 table. Each result is a product, a fused
// multiply-add and the rounding of the output: u (|x1 c| + |x2 s|) for either of the first two.
Rotated rotate(const Values& x, const Values& table, const AttentionShape& shape,
               int64_t first_position, Direction direction, Dtype dtype) {
  Rotated r{x, Values(x.size(), 0.0)};
  const int64_t half = shape.head_dim / 2;
  const double sign = direction == Direction::kBackward ? -1.0 : 1.0;
  for (int64_t n = 0; n < shape.n_tokens(); ++n) {
    for (int64_t h = 0; h < shape.n_heads + shape.n_kv_heads; ++h) {
      for (int64_t j = 0; j < half; ++j) {
        const auto row = static_cast<size_t>((first_position + n % shape.seq_len) * shape.head_dim);
        const double c = table[row + static_cast<size_t>(j)];
        const double s = sign * table[row + static_cast<size_t>(half + j)];
        const auto a = static_cast<size_t>(n * shape.qkv_width() + h * shape.head_dim + j);
        const size_t b = a + static_cast<size_t>(half);
        r.x[a] = x[a] * c - x[b] * s;
        r.x[b] = x[a] * s + x[b] * c;
        const double u32 = 2 * test::kF32Roundoff, u_out = test::roundoff(dtype);
        const double a_sum = std::abs(x[a] * c) + std::abs(x[b] * s);
        const double b_sum = std::abs(x[a] * s) + std::abs(x[b] * c);
        r.bound[a] = u32 * a_sum + u_out * (std::abs(r.x[a]) + u32 * a_sum);
        r.bound[b] = u32 * b_sum + u_out * (std::abs(r.x[b]) + u32 * b_sum);
      }
    }
  }
  return r;
}

struct Case {
  Case(Dtype dtype, const AttentionShape& s, int64_t n_positions, uint64_t seed)
      : shape(s),
        qkv(dtype, s.n_tokens(), s.qkv_width(), 3),
        table(Dtype::kF32, n_positions, s.head_dim, 2) {
    Random random(seed);
    qkv.fill(random, -2.0, 2.0);
    std::vector<float> angles(static_cast<size_t>(n_positions * s.head_dim));
    fill_rope_table(angles, n_positions, s.head_dim, 10000.0);
    table.assign(Values(angles.begin(), angles.end()));
  }
  AttentionShape shape;
  Guarded qkv, table;
};

const AttentionShape kShapes[] = {
    {.batch = 1, .seq_len = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 2},
    {.batch = 2, .seq_len = 5, .n_heads = 3, .n_kv_heads = 1, .head_dim = 14},
    {.batch = 2, .seq_len = 9, .n_heads = 2, .n_kv_heads = 2, .head_dim = 64},
    {.batch = 1, .seq_len = 7, .n_heads = 4, .n_kv_heads = 2, .head_dim = 80},
};

class RopeTest : public testing::TestWithParam<Dtype> {};
INSTANTIATE_TEST_SUITE_P(Types, RopeTest, testing::Values(Dtype::kF32, Dtype::kBf16),
                         [](const auto& type) { return std::string(name(type.param)); });

TEST_P(RopeTest, BothDirectionsStayWithinTheirBounds) {
  for (const AttentionShape& shape : kShapes) {
    for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
      for (const int64_t first : {0, 6}) {
        Case c(GetParam(), shape, first + shape.seq_len, 21);
        const Rotated expected =
            rotate(c.qkv.values(), c.table.values(), shape, first, direction, GetParam());
        cpu::rope(c.qkv, c.table, shape, first, direction);
        // v keeps its bits: its bound is zero.
        test::expect_within(
            expected.x, c.qkv.values(), [&](size_t i) { return expected.bound[i]; }, "rope");
        c.qkv.expect_guards_intact("rope");
      }
    }
  }
}

TEST(RopeReference, BackwardIsTheGradientOfForward) {
  const AttentionShape shape{
      .batch = 1, .seq_len = 3, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  const Case c(Dtype::kF32, shape, 3, 22);
  const Values table = c.table.values();
  Random random(23);
  Guarded dy(Dtype::kF32, shape.n_tokens(), shape.qkv_width());
  dy.fill(random, -1.0, 1.0);
  const Values dy_values = dy.values();
  const auto loss = [&](const Values& x) {
    const Values y = rotate(x, table, shape, 0, Direction::kForward, Dtype::kF32).x;
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy_values[i];
    return sum;
  };
  const Values dx = rotate(dy_values, table, shape, 0, Direction::kBackward, Dtype::kF32).x;
  test::expect_gradient(loss, c.qkv.values(), dx, "rope");
}

TEST(RopeTable, HoldsTheAnglesOfThePaper) {
  constexpr int64_t kPositions = 300, kDim = 6;
  constexpr double kTheta = 500000.0;
  std::vector<float> table(kPositions * kDim);
  fill_rope_table(table, kPositions, kDim, kTheta);
  for (int64_t position = 0; position < kPositions; ++position) {
    for (int64_t j = 0; j < kDim / 2; ++j) {
      const long double angle =
          position * std::pow(static_cast<long double>(kTheta), -2.0L * j / kDim);
      // One rounding to FP32; the angle in FP64 is off by a few units of 2^-53.
      const double slack = static_cast<double>(position) * 0x1p-50;
      const double c = static_cast<double>(std::cos(angle)),
                   s = static_cast<double>(std::sin(angle));
      const size_t at = static_cast<size_t>(position * kDim + j);
      EXPECT_NEAR(c, table[at], std::abs(c) * test::kF32Roundoff + slack);
      EXPECT_NEAR(s, table[at + kDim / 2], std::abs(s) * test::kF32Roundoff + slack);
    }
  }
}

TEST_P(RopeTest, SameBitsAtAnyNumberOfThreads) {
  test::expect_same_bits_at_any_threads(
      [&] {
        Case c(GetParam(), kShapes[1], 20, 24);
        cpu::rope(c.qkv, c.table, c.shape, 11, Direction::kForward);
        return test::bits_of(c.qkv);
      },
      "rope");
}

TEST_P(RopeTest, NanReachesItsPartnerAlone) {
  const AttentionShape shape = kShapes[2];
  Case c(GetParam(), shape, shape.seq_len, 25);
  c.qkv.set(4, 3, std::numeric_limits<double>::quiet_NaN());
  cpu::rope(c.qkv, c.table, shape, 0, Direction::kForward);
  for (int64_t n = 0; n < shape.n_tokens(); ++n) {
    for (int64_t col = 0; col < shape.qkv_width(); ++col) {
      const bool expected = n == 4 && (col == 3 || col == 3 + shape.head_dim / 2);
      EXPECT_EQ(expected, std::isnan(c.qkv.at(n, col))) << n << ' ' << col;
    }
  }
}

TEST(RopeCheck, RefusesWhatItCannotRotate) {
  Case c(Dtype::kF32, kShapes[1], 7, 26);
  EXPECT_THROW(cpu::rope(c.qkv, c.table, c.shape, 3, Direction::kForward), Error);  // 3 + 5 > 7
  EXPECT_THROW(cpu::rope(c.qkv, c.table, c.shape, -1, Direction::kForward), Error);
  AttentionShape odd = c.shape;
  odd.head_dim = 7;
  EXPECT_THROW(cpu::rope(c.qkv, c.table, odd, 0, Direction::kForward), Error);
  std::vector<float> table(10);
  EXPECT_THROW(fill_rope_table(table, 2, 4, 10000.0), Error);
}

}  // namespace
}  // namespace qstep::ops
