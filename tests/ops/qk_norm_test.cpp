// QK-norm against FP64. Roundings, u = 2^-24: the sum of D squares makes rstd wrong by (D + 8) u of
// itself at most; every later product adds one u, every sum of n terms n u of the sum of their
// magnitudes, every output its own rounding.
#include "ops/qk_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace qstep::ops {
namespace {

using test::Guarded;
using test::Random;
using Values = std::vector<double>;

constexpr float kEps = 1e-5f;

struct Problem {
  AttentionShape shape;
  Values qkv, wq, wk, dy;

  size_t x_at(int64_t n, int64_t h) const {
    return static_cast<size_t>(n * shape.qkv_width() + h * shape.head_dim);
  }
  int64_t n_normed() const { return shape.n_heads + shape.n_kv_heads; }
  const Values& w(int64_t h) const { return h < shape.n_heads ? wq : wk; }
  double rstd(size_t x) const {
    double sum = 0;
    for (int64_t d = 0; d < shape.head_dim; ++d) {
      sum += qkv[x + static_cast<size_t>(d)] * qkv[x + static_cast<size_t>(d)];
    }
    return 1.0 / std::sqrt(sum / static_cast<double>(shape.head_dim) + static_cast<double>(kEps));
  }
};

struct Forward {
  Values y, rstd;
};
Forward forward(const Problem& p) {
  Forward f{p.qkv, {}};
  for (int64_t n = 0; n < p.shape.n_tokens(); ++n) {
    for (int64_t h = 0; h < p.n_normed(); ++h) {
      const size_t x = p.x_at(n, h);
      f.rstd.push_back(p.rstd(x));
      for (size_t d = 0; d < static_cast<size_t>(p.shape.head_dim); ++d) {
        f.y[x + d] = p.qkv[x + d] * f.rstd.back() * p.w(h)[d];
      }
    }
  }
  return f;
}

struct Backward {
  Values dqkv, dwq, dwk;
  Values dqkv_bound, dwq_bound, dwk_bound;
};
Backward backward(const Problem& p, Dtype dtype) {
  const auto D = static_cast<size_t>(p.shape.head_dim);
  const double u_dx = static_cast<double>(3 * D + 32) * test::kF32Roundoff;
  const double u_dw =
      static_cast<double>(p.shape.n_tokens() * p.n_normed() + p.shape.head_dim + 32) *
      test::kF32Roundoff;
  Backward r{p.dy, Values(D), Values(D), Values(p.dy.size()), Values(D), Values(D)};
  for (int64_t n = 0; n < p.shape.n_tokens(); ++n) {
    for (int64_t h = 0; h < p.n_normed(); ++h) {
      const size_t x = p.x_at(n, h);
      const double rstd = p.rstd(x);
      const Values& w = p.w(h);
      double mean = 0, mean_size = 0;
      for (size_t d = 0; d < D; ++d) {
        const double term = p.dy[x + d] * w[d] * p.qkv[x + d] * rstd / static_cast<double>(D);
        mean += term;
        mean_size += std::abs(term);
      }
      Values& dw = h < p.shape.n_heads ? r.dwq : r.dwk;
      Values& dw_bound = h < p.shape.n_heads ? r.dwq_bound : r.dwk_bound;
      for (size_t d = 0; d < D; ++d) {
        const double x_hat = p.qkv[x + d] * rstd;
        r.dqkv[x + d] = rstd * (w[d] * p.dy[x + d] - x_hat * mean);
        r.dqkv_bound[x + d] =
            u_dx * rstd * (std::abs(w[d] * p.dy[x + d]) + std::abs(x_hat) * mean_size) +
            test::roundoff(dtype) * std::abs(r.dqkv[x + d]);
        dw[d] += p.dy[x + d] * x_hat;
        dw_bound[d] += u_dw * std::abs(p.dy[x + d] * x_hat);
      }
    }
  }
  return r;
}

struct Case {
  Case(Dtype dtype, const AttentionShape& s, uint64_t seed)
      : shape(s),
        qkv(dtype, s.n_tokens(), s.qkv_width(), 3),
        y(dtype, s.n_tokens(), s.qkv_width(), 1),
        dqkv(dtype, s.n_tokens(), s.qkv_width(), 5),
        wq(dtype, 1, s.head_dim),
        wk(dtype, 1, s.head_dim),
        rstd(Dtype::kF32, s.n_tokens(), s.n_heads + s.n_kv_heads, 2),
        dwq(Dtype::kF32, 1, s.head_dim),
        dwk(Dtype::kF32, 1, s.head_dim) {
    Random random(seed);
    qkv.fill(random, -2.0, 2.0);
    dqkv.fill(random, -1.0, 1.0);
    wq.fill(random, 0.5, 1.5);
    wk.fill(random, 0.5, 1.5);
  }
  Problem problem() const { return {shape, qkv.values(), wq.values(), wk.values(), dqkv.values()}; }
  void forward() { cpu::qk_norm_forward(y, rstd, qkv, wq, wk, shape, kEps); }
  void backward(Accumulate mode) {
    cpu::qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, mode, workspace);
  }

  AttentionShape shape;
  Guarded qkv, y, dqkv, wq, wk, rstd, dwq, dwk;
  Workspace workspace;
};

const AttentionShape kShapes[] = {
    {.batch = 1, .seq_len = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 1},
    {.batch = 2, .seq_len = 35, .n_heads = 3, .n_kv_heads = 1, .head_dim = 13},
    {.batch = 1, .seq_len = 67, .n_heads = 2, .n_kv_heads = 2, .head_dim = 64},
    {.batch = 1, .seq_len = 9, .n_heads = 4, .n_kv_heads = 2, .head_dim = 80},
};

class QkNormTest : public testing::TestWithParam<Dtype> {};
INSTANTIATE_TEST_SUITE_P(Types, QkNormTest, testing::Values(Dtype::kF32, Dtype::kBf16),
                         [](const auto& type) { return std::string(name(type.param)); });

TEST_P(QkNormTest, ForwardStaysWithinItsBounds) {
  for (const AttentionShape& shape : kShapes) {
    Case c(GetParam(), shape, 31);
    c.forward();
    const Forward expected = forward(c.problem());
    const double u = static_cast<double>(shape.head_dim + 8) * test::kF32Roundoff;
    test::expect_within(expected.rstd, c.rstd.values(), {.relative = u}, "rstd");
    test::expect_within(
        expected.y, c.y.values(),
        {.relative = u + 2 * test::kF32Roundoff + 1.01 * test::roundoff(GetParam())}, "y");
    for (int64_t n = 0; n < shape.n_tokens(); ++n) {  // v is copied
      for (int64_t col = shape.q_width() + shape.kv_width(); col < shape.qkv_width(); ++col) {
        ASSERT_EQ(c.qkv.at(n, col), c.y.at(n, col));
      }
    }
    c.y.expect_guards_intact("y");
    c.rstd.expect_guards_intact("rstd");
  }
}

TEST_P(QkNormTest, BackwardStaysWithinItsBounds) {
  for (const AttentionShape& shape : kShapes) {
    Case c(GetParam(), shape, 32);
    c.forward();
    const Problem problem = c.problem();
    const Backward expected = backward(problem, GetParam());
    c.backward(Accumulate::kNo);
    test::expect_within(
        expected.dqkv, c.dqkv.values(), [&](size_t i) { return expected.dqkv_bound[i]; }, "dqkv");
    const auto dwq_bound = [&](size_t i) { return expected.dwq_bound[i]; };
    const auto dwk_bound = [&](size_t i) { return expected.dwk_bound[i]; };
    test::expect_within(expected.dwq, c.dwq.values(), dwq_bound, "dwq");
    test::expect_within(expected.dwk, c.dwk.values(), dwk_bound, "dwk");

    // Adding to what is there: one more addition.
    c.dqkv.assign(problem.dy);
    Guarded dwq(Dtype::kF32, 1, shape.head_dim), dwk(Dtype::kF32, 1, shape.head_dim);
    for (int64_t d = 0; d < shape.head_dim; ++d) {
      dwq.set(0, d, static_cast<double>(static_cast<float>(c.dwq.at(0, d)) + 0.5f));
      dwk.set(0, d, static_cast<double>(static_cast<float>(c.dwk.at(0, d)) + 0.5f));
    }
    c.dwq.fill(0.5);
    c.dwk.fill(0.5);
    c.backward(Accumulate::kYes);
    test::expect_same_bits(dwq, c.dwq, "dwq, added");
    test::expect_same_bits(dwk, c.dwk, "dwk, added");
    c.dqkv.expect_guards_intact("dqkv");
    c.dwq.expect_guards_intact("dwq");
    c.dwk.expect_guards_intact("dwk");
  }
}

TEST(QkNormReference, GradientsMatchCentralDifferences) {
  const AttentionShape shape{
      .batch = 1, .seq_len = 3, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  const Case c(Dtype::kF32, shape, 33);
  const Problem problem = c.problem();
  const auto loss = [&](Values Problem::*which) {
    return [&, which](const Values& x) {
      Problem p = problem;
      p.*which = x;
      const Values y = forward(p).y;
      double sum = 0;
      for (size_t i = 0; i < y.size(); ++i) sum += y[i] * problem.dy[i];
      return sum;
    };
  };
  const Backward gradient = backward(problem, Dtype::kF32);
  test::expect_gradient(loss(&Problem::qkv), problem.qkv, gradient.dqkv, "dqkv");
  test::expect_gradient(loss(&Problem::wq), problem.wq, gradient.dwq, "dwq");
  test::expect_gradient(loss(&Problem::wk), problem.wk, gradient.dwk, "dwk");
}

TEST_P(QkNormTest, SameBitsAtAnyNumberOfThreads) {
  test::expect_same_bits_at_any_threads(
      [&] {
        Case c(GetParam(), kShapes[1], 34);
        c.forward();
        c.backward(Accumulate::kNo);
        return test::bits_of(c.y, c.rstd, c.dqkv, c.dwq, c.dwk);
      },
      "qk_norm");
}

TEST_P(QkNormTest, NanStaysInItsHead) {
  const AttentionShape shape = kShapes[1];
  Case c(GetParam(), shape, 35);
  c.qkv.set(5, shape.head_dim + 2, std::numeric_limits<double>::quiet_NaN());
  c.forward();
  for (int64_t n = 0; n < shape.n_tokens(); ++n) {
    for (int64_t col = 0; col < shape.qkv_width(); ++col) {
      EXPECT_EQ(n == 5 && col / shape.head_dim == 1, std::isnan(c.y.at(n, col))) << n << ' ' << col;
    }
  }
}

TEST(QkNormCheck, RefusesShapesThatDoNotFit) {
  Case c(Dtype::kF32, kShapes[1], 36);
  c.shape.n_kv_heads = 3;
  EXPECT_THROW(c.forward(), Error);
  EXPECT_THROW(c.backward(Accumulate::kNo), Error);
}

}  // namespace
}  // namespace qstep::ops
