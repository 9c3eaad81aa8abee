#include "ops/rmsnorm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/elementwise.h"
#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using Values = std::vector<double>;

constexpr double kEps = 1e-5;

struct Reference {
  Values y, rstd, dx, dw;
  Values dx_terms,
      dw_terms;  // the magnitudes that were added: what rounding errors are relative to
};

// The formulas of ops/rmsnorm.h in FP64.
Reference reference(const Values& x, const Values& w, const Values& dy, size_t rows) {
  const size_t cols = w.size();
  const auto n_cols = static_cast<double>(cols);
  Reference r;
  r.y = r.dx = r.dx_terms = Values(x.size());
  r.dw = r.dw_terms = Values(cols);
  for (size_t n = 0; n < rows; ++n) {
    double squares = 0;
    for (size_t c = 0; c < cols; ++c) squares += x[n * cols + c] * x[n * cols + c];
    const double rstd = 1 / std::sqrt(squares / n_cols + kEps);
    double mean_gh = 0, mean_abs_gh = 0;
    for (size_t c = 0; c < cols; ++c) {
      const size_t i = n * cols + c;
      const double gh = dy[i] * w[c] * x[i] * rstd;
      r.y[i] = x[i] * rstd * w[c];
      mean_gh += gh / n_cols;
      mean_abs_gh += std::fabs(gh) / n_cols;
    }
    for (size_t c = 0; c < cols; ++c) {
      const size_t i = n * cols + c;
      const double g = dy[i] * w[c], h = x[i] * rstd;
      r.dx[i] = rstd * (g - h * mean_gh);
      r.dx_terms[i] = rstd * (std::fabs(g) + std::fabs(h) * mean_abs_gh);
      r.dw[c] += dy[i] * h;
      r.dw_terms[c] += std::fabs(dy[i] * h);
    }
    r.rstd.push_back(rstd);
  }
  return r;
}

// Roundings on the longest way through a sum of n terms: 64 running sums, then six folds.
double sum_roundings(int64_t n) { return static_cast<double>(n) / 64 + 8; }

struct Tensors {
  Tensors(Dtype dtype, const RowShape& s, uint64_t seed)
      : x(dtype, s.rows, s.cols, s.gap),
        w(dtype, 1, s.cols),
        dy(dtype, s.rows, s.cols, s.gap),
        y(dtype, s.rows, s.cols, s.gap),
        dx(dtype, s.rows, s.cols, s.gap),
        rstd(Dtype::kF32, 1, s.rows),
        dw(Dtype::kF32, 1, s.cols),
        ref((fill(seed),
             reference(x.values(), w.values(), dy.values(), static_cast<size_t>(s.rows)))) {}
  void fill(uint64_t seed) {
    Random random(seed);
    x.fill(random, -2, 3);
    w.fill(random, 0.5, 1.5);
    dy.fill(random, -1, 1);
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&x, &w, &dy, &y, &dx, &rstd, &dw}) g->expect_guards_intact("rmsnorm");
  }
  Guarded x, w, dy, y, dx, rstd, dw;
  Reference ref;
};

TEST(RmsNorm, ForwardAgreesWithFp64) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Tensors t(dtype, shape, 11);
    ops::cpu::rmsnorm_forward(t.y, t.rstd, t.x, t.w, static_cast<float>(kEps));
    // The square root halves the error of the sum; division, eps, root and reciprocal add four
    // roundings, eps itself one; y two products more.
    const double rstd_bound = (sum_roundings(shape.cols) / 2 + 5) * kF32Roundoff;
    expect_within(t.ref.rstd, t.rstd.values(), {.relative = rstd_bound}, "rstd");
    expect_within(t.ref.y, t.y.values(),
                  {.relative = rstd_bound + 2 * kF32Roundoff + roundoff(dtype)}, "y");
    t.expect_guards_intact();
  });
}

TEST(RmsNorm, BackwardAgreesWithFp64) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Tensors t(dtype, shape, 12);
    ops::Workspace workspace;
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      Values dx_before(t.ref.dx.size()), dw_before(t.ref.dw.size());
      if (mode == Accumulate::kYes) {
        Random random(13);
        dx_before = t.dx.fill(random, -1, 1).values();
        dw_before = t.dw.fill(random, -1, 1).values();
      }
      t.rstd.assign(t.ref.rstd);
      ops::cpu::rmsnorm_backward(t.dx, t.dw, t.dy, t.x, t.w, t.rstd, mode, mode, workspace);

      Values dx = t.ref.dx, dw = t.ref.dw;
      for (size_t i = 0; i < dx.size(); ++i) dx[i] += dx_before[i];
      for (size_t i = 0; i < dw.size(); ++i) dw[i] += dw_before[i];
      // Every term passes through the row's sum and at most eight more operations, rstd's own
      // rounding (twice) included; the addition and the last rounding are relative to the result.
      const double dx_roundings = sum_roundings(shape.cols) + 8;
      expect_within(
          dx, t.dx.values(),
          [&](size_t i) {
            return dx_roundings * kF32Roundoff * t.ref.dx_terms[i] +
                   (kF32Roundoff + roundoff(dtype)) * std::fabs(dx[i]);
          },
          "dx");
      // One rounding an added row, one an added chunk, product, rstd, h, and the addition to dw.
      const double dw_roundings = static_cast<double>(shape.rows) + 5;
      expect_within(
          dw, t.dw.values(),
          [&](size_t c) {
            return dw_roundings * kF32Roundoff * (t.ref.dw_terms[c] + std::fabs(dw_before[c]));
          },
          "dw");
      t.expect_guards_intact();
    }
  });
}

TEST(RmsNorm, ReferenceGradientsByFiniteDifferences) {
  constexpr size_t kRows = 3, kCols = 7;
  Random random(14);
  Values x(kRows * kCols), w(kCols), dy(kRows * kCols);
  for (Values* v : {&x, &w, &dy}) {
    for (double& value : *v) value = random.uniform(-1, 1.5);
  }
  const auto loss = [&](const Values& at_x, const Values& at_w) {
    const Reference r = reference(at_x, at_w, dy, kRows);
    double sum = 0;
    for (size_t i = 0; i < dy.size(); ++i) sum += dy[i] * r.y[i];
    return sum;
  };
  const Reference r = reference(x, w, dy, kRows);
  expect_gradient([&](const Values& v) { return loss(v, w); }, x, r.dx, "dx");
  expect_gradient([&](const Values& v) { return loss(x, v); }, w, r.dw, "dw");
}

TEST(RmsNorm, FusedResidualGivesTheBitsOfItsParts) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Tensors parts(dtype, shape, 15), fused(dtype, shape, 15);
    Guarded sum(dtype, shape.rows, shape.cols), fused_sum(dtype, shape.rows, shape.cols, 7);
    const float eps = static_cast<float>(kEps);
    const Tensor addends[] = {parts.x, parts.dy};
    ops::cpu::add(sum, addends);
    ops::cpu::rmsnorm_forward(parts.y, parts.rstd, sum, parts.w, eps);
    ops::cpu::residual_rmsnorm_forward(fused_sum, fused.y, fused.rstd, fused.x, fused.dy, fused.w,
                                       eps);
    expect_same_bits(sum, fused_sum, "sum");
    expect_same_bits(parts.y, fused.y, "y");
    expect_same_bits(parts.rstd, fused.rstd, "rstd");
    fused_sum.expect_guards_intact("sum");
    fused.expect_guards_intact();
    // sum may be x.
    ops::cpu::residual_rmsnorm_forward(fused.x, fused.y, fused.rstd, fused.x, fused.dy, fused.w,
                                       eps);
    expect_same_bits(sum, fused.x, "sum in place of x");
    expect_same_bits(parts.y, fused.y, "y of a sum in place of x");
  });
}

TEST(RmsNorm, InPlace) {
  Tensors t(Dtype::kBf16, {37, 200, 3}, 16), u(Dtype::kBf16, {37, 200, 3}, 16);
  ops::Workspace workspace;
  const float eps = static_cast<float>(kEps);
  ops::cpu::rmsnorm_forward(t.y, t.rstd, t.x, t.w, eps);
  ops::cpu::rmsnorm_backward(t.dx, t.dw, t.dy, t.x, t.w, t.rstd, Accumulate::kNo, Accumulate::kNo,
                             workspace);
  ops::cpu::rmsnorm_backward(u.dy, u.dw, u.dy, u.x, u.w, t.rstd, Accumulate::kNo, Accumulate::kNo,
                             workspace);
  ops::cpu::rmsnorm_forward(u.x, u.rstd, u.x, u.w, eps);
  expect_same_bits(t.y, u.x, "y in place of x");
  expect_same_bits(t.dx, u.dy, "dx in place of dy");
}

TEST(RmsNorm, SameBitsAtAnyNumberOfThreads) {
  Tensors t(Dtype::kBf16, {131, 200, 3}, 17);
  expect_same_bits_at_any_threads(
      [&] {
        ops::Workspace workspace;
        ops::cpu::rmsnorm_forward(t.y, t.rstd, t.x, t.w, static_cast<float>(kEps));
        ops::cpu::rmsnorm_backward(t.dx, t.dw, t.dy, t.x, t.w, t.rstd, Accumulate::kNo,
                                   Accumulate::kNo, workspace);
        return bits_of(t.y, t.rstd, t.dx, t.dw);
      },
      "rmsnorm");
}

TEST(RmsNorm, NonFiniteRowsStayAmongThemselves) {
  Tensors t(Dtype::kF32, {3, 17, 0}, 18);
  t.x.set(1, 4, std::numeric_limits<double>::quiet_NaN());
  ops::cpu::rmsnorm_forward(t.y, t.rstd, t.x, t.w, static_cast<float>(kEps));
  for (int64_t c = 0; c < 17; ++c) {
    EXPECT_TRUE(std::isfinite(t.y.at(0, c)));
    EXPECT_TRUE(std::isnan(t.y.at(1, c)));
    EXPECT_TRUE(std::isfinite(t.y.at(2, c)));
  }
}

TEST(RmsNorm, RefusesOtherShapesAndTypes) {
  Tensors t(Dtype::kF32, {3, 17, 0}, 19);
  Guarded short_rows(Dtype::kF32, 3, 16), other_type(Dtype::kBf16, 3, 17);
  ops::Workspace workspace;
  EXPECT_THROW(ops::cpu::rmsnorm_forward(short_rows, t.rstd, t.x, t.w, 0), ops::Error);
  EXPECT_THROW(ops::cpu::rmsnorm_forward(other_type, t.rstd, t.x, t.w, 0), ops::Error);
  EXPECT_THROW(ops::cpu::rmsnorm_forward(t.y, t.dw, t.x, t.w, 0), ops::Error);
  EXPECT_THROW(ops::cpu::rmsnorm_backward(short_rows, t.dw, t.dy, t.x, t.w, t.rstd, Accumulate::kNo,
                                          Accumulate::kNo, workspace),
               ops::Error);
}

}  // namespace
}  // namespace qstep::test
