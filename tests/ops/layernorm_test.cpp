#include "ops/layernorm.h"

#include <gtest/gtest.h>

#include <algorithm>
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
  Values y, mean, rstd, dx, dw, db;
  Values mean_abs_x;                             // of each row
  Values y_terms, dx_terms, dw_terms, db_terms;  // what rounding errors are relative to
};

// The formulas of ops/layernorm.h in FP64.
Reference reference(const Values& x, const Values& w, const Values& b, const Values& dy,
                    size_t rows) {
  const size_t cols = w.size();
  const auto n_cols = static_cast<double>(cols);
  Reference r;
  r.y = r.dx = r.y_terms = r.dx_terms = Values(x.size());
  r.dw = r.db = r.dw_terms = r.db_terms = Values(cols);
  for (size_t n = 0; n < rows; ++n) {
    double mean = 0, mean_abs = 0, variance = 0;
    for (size_t c = 0; c < cols; ++c) mean += x[n * cols + c] / n_cols;
    for (size_t c = 0; c < cols; ++c) {
      const double d = x[n * cols + c] - mean;
      mean_abs += std::fabs(x[n * cols + c]) / n_cols;
      variance += d * d / n_cols;
    }
    const double rstd = 1 / std::sqrt(variance + kEps);
    double mean_g = 0, mean_gh = 0, mean_abs_g = 0, mean_abs_gh = 0;
    for (size_t c = 0; c < cols; ++c) {
      const size_t i = n * cols + c;
      const double g = dy[i] * w[c], h = (x[i] - mean) * rstd;
      // x, mean and the row's mean magnitude bound what x - mean was rounded from.
      const double h_terms = (std::fabs(x[i]) + mean_abs) * rstd;
      r.y[i] = h * w[c] + b[c];
      r.y_terms[i] = h_terms * std::fabs(w[c]) + std::fabs(b[c]);
      mean_g += g / n_cols;
      mean_gh += g * h / n_cols;
      mean_abs_g += std::fabs(g) / n_cols;
      mean_abs_gh += std::fabs(g) * h_terms / n_cols;
    }
    for (size_t c = 0; c < cols; ++c) {
      const size_t i = n * cols + c;
      const double g = dy[i] * w[c], h = (x[i] - mean) * rstd;
      const double h_terms = (std::fabs(x[i]) + mean_abs) * rstd;
      r.dx[i] = rstd * (g - mean_g - h * mean_gh);
      r.dx_terms[i] = rstd * (std::fabs(g) + mean_abs_g + h_terms * mean_abs_gh);
      r.dw[c] += dy[i] * h;
      r.dw_terms[c] += std::fabs(dy[i]) * h_terms;
      r.db[c] += dy[i];
      r.db_terms[c] += std::fabs(dy[i]);
    }
    r.mean.push_back(mean);
    r.mean_abs_x.push_back(mean_abs);
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
        b(dtype, 1, s.cols),
        dy(dtype, s.rows, s.cols, s.gap),
        y(dtype, s.rows, s.cols, s.gap),
        dx(dtype, s.rows, s.cols, s.gap),
        mean(Dtype::kF32, 1, s.rows),
        rstd(Dtype::kF32, 1, s.rows),
        dw(Dtype::kF32, 1, s.cols),
        db(Dtype::kF32, 1, s.cols),
        ref((fill(seed), reference(x.values(), w.values(), b.values(), dy.values(),
                                   static_cast<size_t>(s.rows)))) {}
  void fill(uint64_t seed) {
    Random random(seed);
    x.fill(random, -2, 3);
    w.fill(random, 0.5, 1.5);
    b.fill(random, -1, 1);
    dy.fill(random, -1, 1);
  }
  void forward() { ops::cpu::layernorm_forward(y, mean, rstd, x, w, b, static_cast<float>(kEps)); }
  void backward(Accumulate mode) {
    ops::Workspace workspace;
    ops::cpu::layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, mode, mode, workspace);
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&x, &w, &b, &dy, &y, &dx, &mean, &rstd, &dw, &db}) {
      g->expect_guards_intact("layernorm");
    }
  }
  Guarded x, w, b, dy, y, dx, mean, rstd, dw, db;
  Reference ref;
};

TEST(LayerNorm, ForwardAgreesWithFp64) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Tensors t(dtype, shape, 21);
    t.forward();
    const double sum_error = sum_roundings(shape.cols) * kF32Roundoff;
    expect_within(
        t.ref.mean, t.mean.values(),
        [&](size_t n) { return (sum_error + kF32Roundoff) * t.ref.mean_abs_x[n]; }, "mean");
    // As for rmsnorm, plus the error of the mean: its square adds to the variance, which matters
    // where the row is constant and the variance is zero.
    const auto rstd_error = [&](size_t n) {
      const double mean_error = 2 * sum_error * t.ref.mean_abs_x[n] * t.ref.rstd[n];
      return sum_error / 2 + 7 * kF32Roundoff + mean_error * mean_error;
    };
    expect_within(
        t.ref.rstd, t.rstd.values(), [&](size_t n) { return rstd_error(n) * t.ref.rstd[n]; },
        "rstd");
    // The mean's error and rstd's reach y through h; centering, two products and the sum round.
    expect_within(
        t.ref.y, t.y.values(),
        [&](size_t i) {
          const double error = rstd_error(i / static_cast<size_t>(shape.cols));
          return (2 * sum_error + error + 4 * kF32Roundoff) * t.ref.y_terms[i] +
                 roundoff(dtype) * std::fabs(t.ref.y[i]);
        },
        "y");
    t.expect_guards_intact();
  });
}

TEST(LayerNorm, BackwardAgreesWithFp64) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Tensors t(dtype, shape, 22);
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      Values dx_before(t.ref.dx.size()), dw_before(t.ref.dw.size()), db_before(t.ref.db.size());
      if (mode == Accumulate::kYes) {
        Random random(23);
        dx_before = t.dx.fill(random, -1, 1).values();
        dw_before = t.dw.fill(random, -1, 1).values();
        db_before = t.db.fill(random, -1, 1).values();
      }
      t.mean.assign(t.ref.mean);
      t.rstd.assign(t.ref.rstd);
      t.backward(mode);

      Values dx = t.ref.dx, dw = t.ref.dw, db = t.ref.db;
      for (size_t i = 0; i < dx.size(); ++i) dx[i] += dx_before[i];
      for (size_t i = 0; i < dw.size(); ++i) dw[i] += dw_before[i];
      for (size_t i = 0; i < db.size(); ++i) db[i] += db_before[i];
      // Every term passes through a row's sum and at most ten more operations, the roundings of
      // mean and rstd included; the addition and the last rounding are relative to the result.
      const double dx_roundings = sum_roundings(shape.cols) + 10;
      expect_within(
          dx, t.dx.values(),
          [&](size_t i) {
            return dx_roundings * kF32Roundoff * t.ref.dx_terms[i] +
                   (kF32Roundoff + roundoff(dtype)) * std::fabs(dx[i]);
          },
          "dx");
      // One rounding an added row or chunk, at most six in h and the product, one for what was
      // there.
      const double roundings = static_cast<double>(shape.rows) + 7;
      expect_within(
          dw, t.dw.values(),
          [&](size_t c) {
            return roundings * kF32Roundoff * (t.ref.dw_terms[c] + std::fabs(dw_before[c]));
          },
          "dw");
      expect_within(
          db, t.db.values(),
          [&](size_t c) {
            return roundings * kF32Roundoff * (t.ref.db_terms[c] + std::fabs(db_before[c]));
          },
          "db");
      t.expect_guards_intact();
    }
  });
}

TEST(LayerNorm, ReferenceGradientsByFiniteDifferences) {
  constexpr size_t kRows = 3, kCols = 7;
  Random random(24);
  Values x(kRows * kCols), w(kCols), b(kCols), dy(kRows * kCols);
  for (Values* v : {&x, &w, &b, &dy}) {
    for (double& value : *v) value = random.uniform(-1, 1.5);
  }
  const auto loss = [&](const Values& at_x, const Values& at_w, const Values& at_b) {
    const Reference r = reference(at_x, at_w, at_b, dy, kRows);
    double sum = 0;
    for (size_t i = 0; i < dy.size(); ++i) sum += dy[i] * r.y[i];
    return sum;
  };
  const Reference r = reference(x, w, b, dy, kRows);
  expect_gradient([&](const Values& v) { return loss(v, w, b); }, x, r.dx, "dx");
  expect_gradient([&](const Values& v) { return loss(x, v, b); }, w, r.dw, "dw");
  expect_gradient([&](const Values& v) { return loss(x, w, v); }, b, r.db, "db");
}

TEST(LayerNorm, FusedResidualGivesTheBitsOfItsParts) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Tensors parts(dtype, shape, 25), fused(dtype, shape, 25);
    Guarded sum(dtype, shape.rows, shape.cols), fused_sum(dtype, shape.rows, shape.cols, 7);
    const float eps = static_cast<float>(kEps);
    const Tensor addends[] = {parts.x, parts.dy};
    ops::cpu::add(sum, addends);
    ops::cpu::layernorm_forward(parts.y, parts.mean, parts.rstd, sum, parts.w, parts.b, eps);
    ops::cpu::residual_layernorm_forward(fused_sum, fused.y, fused.mean, fused.rstd, fused.x,
                                         fused.dy, fused.w, fused.b, eps);
    expect_same_bits(sum, fused_sum, "sum");
    expect_same_bits(parts.y, fused.y, "y");
    expect_same_bits(parts.mean, fused.mean, "mean");
    expect_same_bits(parts.rstd, fused.rstd, "rstd");
    fused_sum.expect_guards_intact("sum");
    fused.expect_guards_intact();
  });
}

TEST(LayerNorm, InPlace) {
  Tensors t(Dtype::kBf16, {37, 200, 3}, 26), u(Dtype::kBf16, {37, 200, 3}, 26);
  ops::Workspace workspace;
  t.forward();
  t.backward(Accumulate::kNo);
  ops::cpu::layernorm_backward(u.dy, u.dw, u.db, u.dy, u.x, u.w, t.mean, t.rstd, Accumulate::kNo,
                               Accumulate::kNo, workspace);
  ops::cpu::layernorm_forward(u.x, u.mean, u.rstd, u.x, u.w, u.b, static_cast<float>(kEps));
  expect_same_bits(t.y, u.x, "y in place of x");
  expect_same_bits(t.dx, u.dy, "dx in place of dy");
}

TEST(LayerNorm, SameBitsAtAnyNumberOfThreads) {
  Tensors t(Dtype::kBf16, {131, 200, 3}, 27);
  expect_same_bits_at_any_threads(
      [&] {
        t.forward();
        t.backward(Accumulate::kNo);
        return bits_of(t.y, t.mean, t.rstd, t.dx, t.dw, t.db);
      },
      "layernorm");
}

// The second pass over the row keeps the digits that mean(x^2) - mean(x)^2 would lose: the values
// are one part in 10^4 of their mean apart.
TEST(LayerNorm, VarianceOfNearlyEqualValues) {
  Tensors t(Dtype::kF32, {1, 256, 0}, 28);
  Random random(29);
  t.x.fill(random, 1000, 1000.1);
  const Reference r = reference(t.x.values(), t.w.values(), t.b.values(), t.dy.values(), 1);
  t.forward();
  const double sum_error = sum_roundings(256) * kF32Roundoff;
  const double mean_error = (sum_error + kF32Roundoff) * r.mean_abs_x[0] * r.rstd[0];
  const double bound = mean_error * mean_error + sum_error;
  EXPECT_LT(bound, 1e-3);
  expect_within(r.rstd, t.rstd.values(), {.relative = bound}, "rstd");
}

TEST(LayerNorm, NonFiniteRowsStayAmongThemselves) {
  Tensors t(Dtype::kF32, {3, 17, 0}, 30);
  t.x.set(1, 4, std::numeric_limits<double>::infinity());
  t.forward();
  for (int64_t c = 0; c < 17; ++c) {
    EXPECT_TRUE(std::isfinite(t.y.at(0, c)));
    EXPECT_TRUE(std::isnan(t.y.at(1, c)));
    EXPECT_TRUE(std::isfinite(t.y.at(2, c)));
  }
}

TEST(LayerNorm, RefusesOtherShapesAndTypes) {
  Tensors t(Dtype::kF32, {3, 17, 0}, 31);
  Guarded short_rows(Dtype::kF32, 3, 16), other_type(Dtype::kBf16, 3, 17);
  EXPECT_THROW(ops::cpu::layernorm_forward(short_rows, t.mean, t.rstd, t.x, t.w, t.b, 0),
               ops::Error);
  EXPECT_THROW(ops::cpu::layernorm_forward(other_type, t.mean, t.rstd, t.x, t.w, t.b, 0),
               ops::Error);
  EXPECT_THROW(ops::cpu::layernorm_forward(t.y, t.mean, t.rstd, t.x, t.w, t.mean, 0), ops::Error);
}

}  // namespace
}  // namespace qstep::test
