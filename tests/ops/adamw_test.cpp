#include "ops/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::AdamWParams;
using Values = std::vector<double>;

constexpr int64_t kSizes[] = {1, 15, 16, 17, 1003, 40001};
constexpr AdamWParams kParams{
    .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .t = 3};
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Tensors {
  Tensors(Dtype w_type, int64_t n, uint64_t seed)
      : w(w_type, 1, n),
        master(Dtype::kF32, 1, n),
        m(Dtype::kF32, 1, n),
        v(Dtype::kF32, 1, n),
        grad(Dtype::kF32, 1, n),
        factor(Dtype::kF32, 1, 1) {
    Random random(seed);
    w.fill(random, -1, 1);
    master.fill(random, -1, 1);
    m.fill(random, -1e-2, 1e-2);
    v.fill(random, 0, 1e-4);
    grad.fill(random, -1e-2, 1e-2);
    factor.fill(0.7);
  }
  void update(const AdamWParams& params = kParams) {
    ops::cpu::adamw(w, master, m, v, grad, factor, params);
  }
  void update_fp32(const AdamWParams& params = kParams) {
    ops::cpu::adamw(master, master, m, v, grad, factor, params);
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&w, &master, &m, &v, &grad, &factor}) g->expect_guards_intact("adamw");
  }
  Guarded w, master, m, v, grad, factor;
};

// The formula of ops/ops.h in plain floats, one operation a line: independent of ops/adamw.h.
struct Element {
  float master, m, v;
};
Element restated(Element e, float grad, float factor, const AdamWParams& p) {
  const float correction1 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(p.beta1), p.t)));
  const float correction2 =
      static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(p.beta2), p.t)));
  const float g = factor * grad;
  const float old_m = p.beta1 * e.m;
  const float new_m = (1.0f - p.beta1) * g;
  e.m = old_m + new_m;
  const float old_v = p.beta2 * e.v;
  float new_v = (1.0f - p.beta2) * g;
  new_v = new_v * g;
  e.v = old_v + new_v;
  const float m_hat = e.m * correction1;
  const float v_hat = e.v * correction2;
  const float root = std::sqrt(v_hat);
  const float denominator = root + p.eps;
  float step = m_hat / denominator;
  const float decay = p.weight_decay * e.master;
  step = step + decay;
  const float change = p.lr * step;
  e.master = e.master - change;
  return e;
}

TEST(AdamW, VectorLoopGivesTheBitsOfTheFormula) {
  for (const Dtype w_type : kFloatTypes) {
    for (const int64_t n : kSizes) {
      SCOPED_TRACE(fmt::format("{} n {}", ops::name(w_type), n));
      Tensors t(w_type, n, 101), before(w_type, n, 101);
      Guarded master(Dtype::kF32, 1, n), m(Dtype::kF32, 1, n), v(Dtype::kF32, 1, n),
          w(w_type, 1, n);
      const auto factor = static_cast<float>(t.factor.at(0, 0));
      const ops::AdamWCoefficients<float> c = ops::adamw_coefficients(kParams, factor);
      for (int64_t i = 0; i < n; ++i) {
        const auto at = [i](const Guarded& g) { return static_cast<float>(g.at(0, i)); };
        const Element e = restated({at(before.master), at(before.m), at(before.v)}, at(before.grad),
                                   factor, kParams);
        Element one{at(before.master), at(before.m), at(before.v)};
        ops::adamw_update(one.master, one.m, one.v, at(before.grad), c);
        ASSERT_EQ(one.master, e.master);
        ASSERT_EQ(one.m, e.m);
        ASSERT_EQ(one.v, e.v);
        master.set(0, i, static_cast<double>(e.master));
        m.set(0, i, static_cast<double>(e.m));
        v.set(0, i, static_cast<double>(e.v));
        w.set(0, i, static_cast<double>(e.master));
      }
      if (w_type == Dtype::kF32) {
        t.update_fp32();
      } else {
        t.update();
        expect_same_bits(w, t.w, "w");
      }
      expect_same_bits(master, t.master, "master");
      expect_same_bits(m, t.m, "m");
      expect_same_bits(v, t.v, "v");
      t.expect_guards_intact();
    }
  }
}

// The published algorithm in FP64. Every quantity passes through fewer than ten roundings.
TEST(AdamW, AgreesWithFp64) {
  constexpr double kRoundings = 10;
  Tensors t(Dtype::kBf16, 1003, 102), before(Dtype::kBf16, 1003, 102);
  t.update();
  const auto beta1 = static_cast<double>(kParams.beta1), beta2 = static_cast<double>(kParams.beta2);
  const auto lr = static_cast<double>(kParams.lr);
  const auto decay = static_cast<double>(kParams.weight_decay);
  for (int64_t i = 0; i < 1003; ++i) {
    const double g = before.factor.at(0, 0) * before.grad.at(0, i);
    const double m = beta1 * before.m.at(0, i) + (1 - beta1) * g;
    const double v = beta2 * before.v.at(0, i) + (1 - beta2) * g * g;
    const double m_hat = m / (1 - std::pow(beta1, kParams.t));
    const double v_hat = v / (1 - std::pow(beta2, kParams.t));
    const double denominator = std::sqrt(v_hat) + static_cast<double>(kParams.eps);
    const double old = before.master.at(0, i);
    const double master = old - lr * (m_hat / denominator + decay * old);

    const double m_terms = beta1 * std::fabs(before.m.at(0, i)) + (1 - beta1) * std::fabs(g);
    const double error = kRoundings * kF32Roundoff;
    ASSERT_NEAR(t.m.at(0, i), m, error * m_terms);
    ASSERT_NEAR(t.v.at(0, i), v, error * v);
    const double step_terms = m_terms / (1 - std::pow(beta1, kParams.t)) / denominator;
    const double bound =
        error * lr * (step_terms + decay * std::fabs(old)) + kF32Roundoff * std::fabs(master);
    ASSERT_NEAR(t.master.at(0, i), master, bound);
    ASSERT_NEAR(t.w.at(0, i), master, bound + kBf16Roundoff * std::fabs(master));
  }
}

TEST(AdamW, FirstStepMovesByTheLearningRateAgainstTheGradient) {
  Tensors t(Dtype::kF32, 20, 103);
  t.m.fill(0.0);
  t.v.fill(0.0);
  t.factor.fill(1.0);
  const Values before = t.master.values();
  t.update_fp32({.lr = 1e-2f, .weight_decay = 0.0f, .t = 1});
  for (int64_t i = 0; i < 20; ++i) {
    // m / sqrt(v) is the gradient's sign, but for eps; weights below 1 round by 2^-25.
    const double g = t.grad.at(0, i);
    const double bound = 1e-2 * (1e-8 / std::fabs(g) + 10 * kF32Roundoff) + kF32Roundoff;
    EXPECT_NEAR(t.master.at(0, i) - before[static_cast<size_t>(i)], g > 0 ? -1e-2 : 1e-2, bound);
  }
}

TEST(AdamW, NanFactorLeavesEverything) {
  Tensors t(Dtype::kBf16, 1003, 104), before(Dtype::kBf16, 1003, 104);
  t.factor.fill(kNan);
  t.update();
  expect_same_bits(before.w, t.w, "w");
  expect_same_bits(before.master, t.master, "master");
  expect_same_bits(before.m, t.m, "m");
  expect_same_bits(before.v, t.v, "v");
}

TEST(AdamW, SameBitsAtAnyNumberOfThreads) {
  expect_same_bits_at_any_threads(
      [] {
        Tensors t(Dtype::kBf16, 40001, 105);
        t.update();
        return bits_of(t.w, t.master, t.m, t.v);
      },
      "adamw");
}

TEST(AdamW, RefusesOtherShapesAndTypes) {
  Tensors t(Dtype::kBf16, 16, 106);
  Guarded other(Dtype::kF32, 1, 15);
  EXPECT_THROW(ops::cpu::adamw(t.w, t.master, other, t.v, t.grad, t.factor, kParams), ops::Error);
  EXPECT_THROW(ops::cpu::adamw(t.w, t.master, t.w, t.v, t.grad, t.factor, kParams), ops::Error);
  EXPECT_THROW(ops::cpu::adamw(t.w, t.master, t.m, t.v, t.grad, t.grad, kParams), ops::Error);
  EXPECT_THROW(t.update({.t = 0}), ops::Error);
}

double clip_factor(double norm, double loss, float max_norm) {
  Guarded factor(Dtype::kF32, 1, 1), n(Dtype::kF32, 1, 1), l(Dtype::kF32, 1, 1);
  n.fill(norm);
  l.fill(loss);
  ops::cpu::clip_factor(factor, n, l, max_norm);
  factor.expect_guards_intact("clip_factor");
  return factor.at(0, 0);
}

TEST(ClipFactor, ScalesLongGradientsAndMarksNonFiniteSteps) {
  EXPECT_EQ(clip_factor(4, 1, 1.0f), 0.25);
  EXPECT_EQ(clip_factor(0.5, 1, 1.0f), 1);
  EXPECT_EQ(clip_factor(1, 1, 1.0f), 1);
  EXPECT_EQ(clip_factor(0, 1, 1.0f), 1);
  EXPECT_EQ(clip_factor(100, 1, 0.0f), 1);  // 0: no clipping
  for (const double bad : {kNan, kInfinity, -kInfinity}) {
    EXPECT_TRUE(std::isnan(clip_factor(bad, 1, 1.0f)));
    EXPECT_TRUE(std::isnan(clip_factor(1, bad, 1.0f)));
    EXPECT_TRUE(std::isnan(clip_factor(bad, 1, 0.0f)));
  }
}

}  // namespace
}  // namespace qstep::test
