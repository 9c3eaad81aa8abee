#include "ops/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::Activation;
using Values = std::vector<double>;

constexpr Activation kKinds[] = {Activation::kGelu, Activation::kRelu2, Activation::kSwiglu};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

// One element's value and slopes in FP64; swiglu takes x = g and v.
struct Point {
  double y, dx, dv = 0;
};

Point evaluate(Activation kind, double x, double v) {
  switch (kind) {
    case Activation::kGelu: {
      const double k = std::sqrt(2 / std::numbers::pi);
      const double t = std::tanh(k * (x + 0.044715 * x * x * x));
      return {x / 2 * (1 + t), (1 + t) / 2 + x / 2 * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x)};
    }
    case Activation::kRelu2:
      return {x > 0 ? x * x : 0, x > 0 ? 2 * x : 0};
    case Activation::kSwiglu: {
      const double s = logistic(x);
      return {x * s * v, v * s * (1 + x * (1 - s)), x * s};
    }
  }
  return {kNan, kNan};
}

// An error of the logistic function of at most 2^-22 (ops/simd/simd.h), multiplied by what it is
// multiplied with; every other operation rounds once.
constexpr double kLogisticError = 0x1p-22;
constexpr double kRoundings = 12;

struct Tensors {
  Tensors(Activation a, Dtype dtype, const RowShape& s, uint64_t seed)
      : kind(a),
        x(dtype, s.rows, ops::activation_input_width(a, s.cols), s.gap),
        y(dtype, s.rows, s.cols, s.gap),
        dy(dtype, s.rows, s.cols, s.gap),
        dx(dtype, s.rows, x.tensor().cols, s.gap) {
    Random random(seed);
    x.fill(random, -6, 6);
    dy.fill(random, -1, 1);
  }
  double v(int64_t r, int64_t c) const {
    return kind == Activation::kSwiglu ? x.at(r, y.tensor().cols + c) : 0;
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&x, &y, &dy, &dx}) g->expect_guards_intact("activation");
  }
  Activation kind;
  Guarded x, y, dy, dx;
};

template <class F>
void for_each_case(F&& f) {
  for (const Activation kind : kKinds) {
    for_each_row_shape([&](Dtype dtype, const RowShape& shape) {
      SCOPED_TRACE(fmt::format("kind {} {}", static_cast<int>(kind), describe(dtype, shape)));
      f(kind, dtype, shape);
    });
  }
}

TEST(Activation, ForwardAgreesWithFp64) {
  for_each_case([](Activation kind, Dtype dtype, const RowShape& shape) {
    Tensors t(kind, dtype, shape, 41);
    ops::cpu::activation_forward(t.y, t.x, kind);
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (int64_t c = 0; c < shape.cols; ++c) {
        const double x = t.x.at(r, c), v = t.v(r, c);
        const double expected = evaluate(kind, x, v).y;
        const double factor = kind == Activation::kSwiglu ? std::fabs(v) : 1;
        const double bound = kLogisticError * std::fabs(x) * factor +
                             (kRoundings * kF32Roundoff + roundoff(dtype)) * std::fabs(expected);
        ASSERT_NEAR(t.y.at(r, c), expected, bound) << "x " << x << " v " << v;
      }
    }
    t.expect_guards_intact();
  });
}

TEST(Activation, BackwardAgreesWithFp64) {
  for_each_case([](Activation kind, Dtype dtype, const RowShape& shape) {
    Tensors t(kind, dtype, shape, 42);
    ops::cpu::activation_backward(t.dx, t.dy, t.x, kind);
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (int64_t c = 0; c < shape.cols; ++c) {
        const double x = t.x.at(r, c), v = t.v(r, c), dy = t.dy.at(r, c);
        const Point p = evaluate(kind, x, v);
        const double factor = std::fabs(dy) * (kind == Activation::kSwiglu ? std::fabs(v) : 1);
        // s enters the slope as s + s (1 - s) z with |z| = |x|, or for gelu |2x u'| <= 1.6 |x| +
        // 0.22 |x|^3 (twice: its own error and that of 1 - s), where s (1 - s) is not below its own
        // error.
        const double slope_of_s = 1 + 3.2 * std::fabs(x) + 0.44 * std::fabs(x * x * x);
        const double bound = (kLogisticError + kRoundings * kF32Roundoff) * slope_of_s * factor +
                             (kRoundings * kF32Roundoff + roundoff(dtype)) * std::fabs(dy * p.dx);
        ASSERT_NEAR(t.dx.at(r, c), dy * p.dx, bound) << "x " << x << " v " << v;
        if (kind == Activation::kSwiglu) {
          const double dv_bound =
              kLogisticError * std::fabs(dy * x) +
              (kRoundings * kF32Roundoff + roundoff(dtype)) * std::fabs(dy * p.dv);
          ASSERT_NEAR(t.dx.at(r, shape.cols + c), dy * p.dv, dv_bound) << "x " << x << " v " << v;
        }
      }
    }
    t.expect_guards_intact();
  });
}

TEST(Activation, ReferenceSlopesByFiniteDifferences) {
  for (const Activation kind : kKinds) {
    for (double x = -5.05; x < 5; x += 0.35) {
      const Point p = evaluate(kind, x, 0.7);
      expect_gradient([&](const Values& at) { return evaluate(kind, at[0], at[1]).y; }, {x, 0.7},
                      {p.dx, p.dv}, "slope");
    }
  }
}

TEST(Activation, InPlace) {
  for (const Activation kind : kKinds) {
    Tensors t(kind, Dtype::kBf16, {37, 203, 3}, 43), u(kind, Dtype::kBf16, {37, 203, 3}, 43);
    ops::cpu::activation_forward(t.y, t.x, kind);
    ops::cpu::activation_backward(t.dx, t.dy, t.x, kind);
    ops::cpu::activation_backward(u.x, u.dy, u.x, kind);
    expect_same_bits(t.dx, u.x, "dx in place of x");
    if (kind == Activation::kSwiglu) continue;
    Tensors w(kind, Dtype::kBf16, {37, 203, 3}, 43);
    ops::cpu::activation_backward(w.dy, w.dy, w.x, kind);
    expect_same_bits(t.dx, w.dy, "dx in place of dy");
    ops::cpu::activation_forward(w.x, w.x, kind);
    expect_same_bits(t.y, w.x, "y in place of x");
  }
}

TEST(Activation, SameBitsAtAnyNumberOfThreads) {
  for (const Activation kind : kKinds) {
    Tensors t(kind, Dtype::kBf16, {37, 203, 3}, 44);
    expect_same_bits_at_any_threads(
        [&] {
          ops::cpu::activation_forward(t.y, t.x, kind);
          ops::cpu::activation_backward(t.dx, t.dy, t.x, kind);
          return bits_of(t.y, t.dx);
        },
        "activation");
  }
}

// Huge inputs saturate; a NaN stays one; nothing finite becomes a NaN.
TEST(Activation, Extremes) {
  constexpr double kHuge = 1e30;
  for (const Activation kind : kKinds) {
    Tensors t(kind, Dtype::kF32, {1, 3, 0}, 45);
    t.x.fill(1.0);
    t.dy.fill(1.0);
    t.x.set(0, 0, 1e15);
    t.x.set(0, 1, -kHuge);
    t.x.set(0, 2, kNan);
    ops::cpu::activation_forward(t.y, t.x, kind);
    ops::cpu::activation_backward(t.dx, t.dy, t.x, kind);
    EXPECT_GE(t.y.at(0, 0), 0.99e15);
    EXPECT_EQ(t.y.at(0, 1), 0);
    EXPECT_TRUE(std::isnan(t.y.at(0, 2)));
    if (kind != Activation::kRelu2) {
      EXPECT_EQ(t.dx.at(0, 0), 1);
    }
    EXPECT_EQ(t.dx.at(0, 1), 0);
    EXPECT_TRUE(std::isnan(t.dx.at(0, 2)));
  }
  Tensors t(Activation::kGelu, Dtype::kF32, {1, 1, 0}, 46);
  t.x.fill(kInfinity);
  ops::cpu::activation_forward(t.y, t.x, t.kind);
  EXPECT_EQ(t.y.at(0, 0), kInfinity);
}

TEST(Activation, RefusesOtherShapesAndTypes) {
  Guarded x(Dtype::kF32, 3, 16), y(Dtype::kF32, 3, 16), half(Dtype::kF32, 3, 8),
      bf16(Dtype::kBf16, 3, 16);
  EXPECT_THROW(ops::cpu::activation_forward(y, x, Activation::kSwiglu), ops::Error);
  EXPECT_THROW(ops::cpu::activation_forward(half, x, Activation::kGelu), ops::Error);
  EXPECT_THROW(ops::cpu::activation_forward(bf16, x, Activation::kGelu), ops::Error);
  EXPECT_THROW(ops::cpu::activation_backward(x, half, x, Activation::kRelu2), ops::Error);
}

}  // namespace
}  // namespace qstep::test
