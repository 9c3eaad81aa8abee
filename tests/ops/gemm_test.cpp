#include "ops/gemm/gemm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/gemm_side.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::Major;
using Values = std::vector<double>;

struct Shape {
  int64_t m, n, k, gap;
};
// One element, vectors, nothing a multiple of anything, whole tiles, a long sum, no output.
constexpr Shape kShapes[] = {{1, 1, 1, 0},    {1, 37, 19, 3},   {29, 1, 65, 0},   {13, 17, 31, 5},
                             {64, 48, 96, 0}, {33, 70, 129, 7}, {20, 24, 777, 1}, {0, 7, 3, 0}};

struct Case {
  Dtype in, out;
  Major a_major, b_major;
  Accumulate accumulate;
  float alpha;
  bool bias;
};

template <class F>
void for_each_case(F&& f) {
  for (const auto& [in, out] : {std::pair{Dtype::kF32, Dtype::kF32},
                                {Dtype::kBf16, Dtype::kBf16},
                                {Dtype::kBf16, Dtype::kF32}}) {
    for (const Major a_major : {Major::kK, Major::kRows}) {
      for (const Major b_major : {Major::kK, Major::kRows}) {
        for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
          f(Case{in, out, a_major, b_major, mode, 1.0f, false});
          f(Case{in, out, a_major, b_major, mode, -0.75f, false});
          f(Case{in, out, a_major, b_major, mode, 1.0f, true});
          f(Case{in, out, a_major, b_major, mode, -0.75f, true});
        }
      }
    }
  }
}

TEST(Gemm, AgreesWithFp64) {
  ops::cpu::Gemm gemm;
  Random random(81);
  for (const Shape& s : kShapes) {
    for_each_case([&](const Case& c) {
      SCOPED_TRACE(fmt::format("{}x{}x{} {}->{} majors {}{} accumulate {} alpha {} bias {}", s.m,
                               s.n, s.k, ops::name(c.in), ops::name(c.out),
                               static_cast<int>(c.a_major), static_cast<int>(c.b_major),
                               static_cast<int>(c.accumulate), c.alpha, c.bias));
      const Side a(c.in, s.m, s.k, c.a_major, s.gap, random);
      const Side b(c.in, s.n, s.k, c.b_major, s.gap, random);
      Guarded bias(c.in, 1, s.n), d(c.out, s.m, s.n, s.gap);
      bias.fill(random, -1, 1);
      Values expected(static_cast<size_t>(s.m * s.n)), terms(expected.size());
      if (c.accumulate == Accumulate::kYes) expected = d.fill(random, -1, 1).values();
      for (size_t i = 0; i < terms.size(); ++i) terms[i] = std::fabs(expected[i]);
      for (int64_t m = 0; m < s.m; ++m) {
        for (int64_t n = 0; n < s.n; ++n) {
          const auto i = static_cast<size_t>(m * s.n + n);
          const auto add = [&](double term) {
            expected[i] += term;
            terms[i] += std::fabs(term);
          };
          for (int64_t k = 0; k < s.k; ++k) add(c.alpha * a.at(m, k) * b.at(n, k));
          if (c.bias) add(bias.at(0, n));
        }
      }
      gemm(d, a.operand(), b.operand(), c.alpha, c.accumulate, c.bias ? bias.tensor() : Tensor{});
      // A rounding for every product and addition of the sum, in whatever order, one each for
      // alpha, bias and d, and the last to the output's type.
      const double roundings = 2 * static_cast<double>(s.k) + 3;
      expect_within(
          expected, d.values(),
          [&](size_t i) {
            return roundings * kF32Roundoff * terms[i] +
                   roundoff(c.out) * (1 + roundings * kF32Roundoff) * std::fabs(expected[i]) +
                   roundoff(c.out) * roundings * kF32Roundoff * terms[i];
          },
          "d");
      d.expect_guards_intact("d");
      a.memory.expect_guards_intact("a");
      b.memory.expect_guards_intact("b");
    });
  }
}

// The three GEMMs of a linear layer: dgrad and wgrad are the derivatives of fprop.
TEST(Gemm, ThreeGemmsOfALinearLayerAreConsistent) {
  constexpr int64_t N = 21, I = 18, O = 26;
  ops::cpu::Gemm gemm;
  Random random(82);
  Guarded x(Dtype::kF32, N, I), w(Dtype::kF32, O, I), dy(Dtype::kF32, N, O), y(Dtype::kF32, N, O);
  Guarded dx(Dtype::kF32, N, I), dw(Dtype::kF32, O, I);
  x.fill(random, -1, 1);
  w.fill(random, -1, 1);
  dy.fill(random, -1, 1);
  gemm(y, ops::rowwise(x), ops::rowwise(w), 1, Accumulate::kNo, {});
  gemm(dx, ops::rowwise(dy), ops::columnwise(w), 1, Accumulate::kNo, {});
  gemm(dw, ops::columnwise(dy), ops::columnwise(x), 1, Accumulate::kNo, {});
  // sum dy y is linear in x and in w: it is sum dx x, and sum dw w.
  const auto dot = [](const Guarded& p, const Guarded& q) {
    double sum = 0;
    const Values u = p.values(), v = q.values();
    for (size_t i = 0; i < u.size(); ++i) sum += u[i] * v[i];
    return sum;
  };
  const double of_y = dot(dy, y);
  const double bound = static_cast<double>(N * I * O) * (2 * I + 3) * kF32Roundoff;
  EXPECT_NEAR(of_y, dot(dx, x), bound);
  EXPECT_NEAR(of_y, dot(dw, w), bound);
}

TEST(Gemm, SameBitsOnASecondRunAndForAnotherBuffer) {
  Random random(83);
  const Side a(Dtype::kBf16, 65, 200, Major::kK, 0, random);
  const Side b(Dtype::kBf16, 130, 200, Major::kRows, 0, random);
  Guarded first(Dtype::kF32, 65, 130), second(Dtype::kF32, 65, 130), fresh(Dtype::kF32, 65, 130);
  ops::cpu::Gemm gemm, other;
  gemm(first, a.operand(), b.operand(), 1, Accumulate::kNo, {});
  gemm(second, a.operand(), b.operand(), 1, Accumulate::kNo, {});
  other(fresh, a.operand(), b.operand(), 1, Accumulate::kNo, {});
  expect_same_bits(first, second, "the same plan, another output");
  expect_same_bits(first, fresh, "another plan");
}

TEST(Gemm, NanAndInfinityReachTheirRowAlone) {
  Random random(84);
  Side a(Dtype::kBf16, 6, 40, Major::kK, 0, random);
  const Side b(Dtype::kBf16, 9, 40, Major::kK, 0, random);
  a.memory.set(2, 7, std::nan(""));
  a.memory.set(4, 0, INFINITY);
  Guarded d(Dtype::kF32, 6, 9);
  ops::cpu::Gemm gemm;
  gemm(d, a.operand(), b.operand(), 1, Accumulate::kNo, {});
  for (int64_t m = 0; m < 6; ++m) {
    for (int64_t n = 0; n < 9; ++n) {
      EXPECT_EQ(m != 2 && m != 4, std::isfinite(d.at(m, n))) << m << " " << n;
    }
  }
}

TEST(Gemm, RefusesOtherShapesAndTypes) {
  ops::cpu::Gemm gemm;
  Guarded a(Dtype::kBf16, 4, 8), b(Dtype::kBf16, 5, 8), d(Dtype::kF32, 4, 5);
  Guarded other_k(Dtype::kBf16, 5, 9), other_type(Dtype::kF32, 5, 8), narrow(Dtype::kF32, 4, 4);
  Guarded bias(Dtype::kBf16, 1, 4);
  const auto run = [&](const Tensor& out, const Tensor& left, const Tensor& right,
                       const Tensor& with_bias, float alpha) {
    gemm(out, ops::rowwise(left), ops::rowwise(right), alpha, Accumulate::kNo, with_bias);
  };
  EXPECT_THROW(run(d, a, other_k, {}, 1), ops::Error);
  EXPECT_THROW(run(d, a, other_type, {}, 1), ops::Error);
  EXPECT_THROW(run(narrow, a, b, {}, 1), ops::Error);
  EXPECT_THROW(run(d, a, b, bias, 1), ops::Error);
  Guarded no_k(Dtype::kBf16, 4, 0), no_k_either(Dtype::kBf16, 5, 0);
  EXPECT_THROW(run(d, no_k, no_k_either, {}, 1), ops::Error);
}

}  // namespace
}  // namespace qstep::test
