#include "ops/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/ops/cross_entropy_reference.h"
#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using Values = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct LossShape {
  int64_t rows, vocab, padding, gap;
};
// 2048 and its neighbours: the block whose maximum is taken at once.
constexpr LossShape kShapes[] = {{1, 1, 0, 0},     {3, 17, 5, 0},    {7, 257, 0, 9},
                                 {4, 2048, 16, 0}, {3, 2049, 15, 1}, {2, 5003, 40, 3},
                                 {0, 10, 6, 0}};

struct Tensors {
  Tensors(Dtype dtype, const LossShape& s, uint64_t seed, double range = 8)
      : vocab(s.vocab),
        logits(dtype, s.rows, s.vocab + s.padding, s.gap),
        targets(Dtype::kI32, 1, s.rows),
        loss(Dtype::kF32, 1, s.rows) {
    Random random(seed);
    logits.fill(random, -range, range);
    for (int64_t n = 0; n < s.rows; ++n) {
      targets.set(0, n, static_cast<double>(random.integer(0, vocab - 1)));
    }
  }
  size_t target(int64_t n) const { return static_cast<size_t>(targets.at(0, n)); }
  Values row(int64_t n) const {
    Values x;
    for (int64_t v = 0; v < vocab; ++v) x.push_back(logits.at(n, v));
    return x;
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&logits, &targets, &loss}) g->expect_guards_intact("cross_entropy");
  }
  int64_t vocab;
  Guarded logits, targets, loss;
};

template <class F>
void for_each_case(F&& f) {
  for (const Dtype dtype : kFloatTypes) {
    for (const LossShape& s : kShapes) {
      SCOPED_TRACE(fmt::format("{} [{}, {} + {}] gap {}", ops::name(dtype), s.rows, s.vocab,
                               s.padding, s.gap));
      f(dtype, s);
    }
  }
}

TEST(CrossEntropy, AgreesWithFp64) {
  for_each_case([](Dtype dtype, const LossShape& shape) {
    constexpr double kRange = 8, kScale = 0.37;
    Tensors t(dtype, shape, 51, kRange), b(dtype, shape, 51, kRange);
    ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, t.vocab);
    ops::cpu::cross_entropy_backward(b.loss, b.logits, b.targets, b.vocab,
                                     static_cast<float>(kScale));
    expect_same_bits(t.loss, b.loss, "loss of forward and backward");
    const double error = softmax_sum_error(shape.vocab, kRange);
    for (int64_t n = 0; n < shape.rows; ++n) {
      const CrossEntropyReference r = cross_entropy_reference(t.row(n), t.target(n));
      // The logarithm turns the sum's relative error into an absolute one; it, the difference and
      // the sum of the two round, all below max - x + log V.
      const double loss_bound =
          error + 3 * kF32Roundoff * (2 * kRange + std::log(static_cast<double>(shape.vocab)));
      EXPECT_NEAR(t.loss.at(0, n), r.loss, loss_bound);
      for (int64_t v = 0; v < shape.vocab + shape.padding; ++v) {
        if (v >= shape.vocab) {
          ASSERT_EQ(b.logits.at(n, v), 0) << "padding";
          continue;
        }
        const double expected = kScale * r.gradient[static_cast<size_t>(v)];
        const bool at_target = static_cast<size_t>(v) == t.target(n);
        const double probability = expected + (at_target ? kScale : 0);
        const double bound = (2 * error + 6 * kF32Roundoff) * probability +
                             2 * kF32Roundoff * (at_target ? kScale : 0) +
                             roundoff(dtype) * std::fabs(expected);
        ASSERT_NEAR(b.logits.at(n, v), expected, bound) << "row " << n << " column " << v;
      }
    }
    t.expect_guards_intact();
    b.expect_guards_intact();
  });
}

TEST(CrossEntropy, ReferenceGradientByFiniteDifferences) {
  Random random(52);
  Values x(23);
  for (double& v : x) v = random.uniform(-3, 3);
  expect_gradient([](const Values& at) { return cross_entropy_reference(at, 5).loss; }, x,
                  cross_entropy_reference(x, 5).gradient, "dlogits");
}

TEST(CrossEntropy, SameBitsAtAnyNumberOfThreads) {
  expect_same_bits_at_any_threads(
      [] {
        Tensors t(Dtype::kBf16, {13, 5003, 5, 2}, 53);
        ops::cpu::cross_entropy_backward(t.loss, t.logits, t.targets, t.vocab, 0.25f);
        return bits_of(t.loss, t.logits);
      },
      "cross_entropy");
}

// Large logits neither overflow nor lose the loss, whichever block holds the maximum.
TEST(CrossEntropy, LargeLogits) {
  for (const int64_t at : {0, 2500, 4999}) {
    Tensors t(Dtype::kF32, {1, 5000, 0, 0}, 54);
    t.logits.fill(-1e4);
    t.logits.set(0, at, 1e4);
    t.targets.set(0, 0, static_cast<double>(at));
    ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, t.vocab);
    EXPECT_EQ(t.loss.at(0, 0), 0);
    t.targets.set(0, 0, 17);
    ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, t.vocab);
    EXPECT_EQ(t.loss.at(0, 0), 2e4);
  }
}

// Whole blocks of masked columns, before, between and behind the others.
TEST(CrossEntropy, MinusInfinityMasksAColumn) {
  for (const int64_t first : {0, 3000}) {
    Tensors t(Dtype::kF32, {1, 9000, 0, 0}, 55);
    const double logit = t.logits.at(0, 0);
    t.logits.fill(-kInfinity);
    t.logits.set(0, first, logit);
    t.logits.set(0, 7000, logit);
    t.targets.set(0, 0, static_cast<double>(first));
    ops::cpu::cross_entropy_backward(t.loss, t.logits, t.targets, t.vocab, 1.0f);
    EXPECT_NEAR(t.loss.at(0, 0), std::log(2.0), 4 * kF32Roundoff);
    EXPECT_EQ(t.logits.at(0, 1), 0);
    EXPECT_NEAR(t.logits.at(0, first), -0.5, 4 * kF32Roundoff);
    EXPECT_NEAR(t.logits.at(0, 7000), 0.5, 4 * kF32Roundoff);
  }
}

TEST(CrossEntropy, NonFiniteLogitsGiveANonFiniteLoss) {
  for (const Dtype dtype : kFloatTypes) {
    for (const double bad : {kNan, kInfinity}) {
      for (const int64_t at : {0, 1, 30, 2047, 2048, 2999}) {
        Tensors t(dtype, {3, 3000, 8, 0}, 56);
        t.logits.set(1, at, bad);
        ops::cpu::cross_entropy_backward(t.loss, t.logits, t.targets, t.vocab, 1.0f);
        EXPECT_TRUE(std::isfinite(t.loss.at(0, 0)));
        EXPECT_FALSE(std::isfinite(t.loss.at(0, 1))) << bad << " at " << at;
        EXPECT_TRUE(std::isfinite(t.loss.at(0, 2)));
      }
    }
    Tensors t(dtype, {1, 3000, 0, 0}, 57);
    t.logits.fill(-kInfinity);
    ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, t.vocab);
    EXPECT_FALSE(std::isfinite(t.loss.at(0, 0)));
    t.logits.set(0, 100, kNan);
    ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, t.vocab);
    EXPECT_FALSE(std::isfinite(t.loss.at(0, 0)));
  }
}

TEST(CrossEntropy, RefusesTargetsOutsideTheVocabularyAndWritesNothing) {
  for (const double bad : {-1.0, 17.0, 2e9}) {
    Tensors t(Dtype::kF32, {3, 17, 5, 0}, 58), untouched(Dtype::kF32, {3, 17, 5, 0}, 58);
    t.targets.set(0, 2, bad);
    EXPECT_THROW(ops::cpu::cross_entropy_backward(t.loss, t.logits, t.targets, t.vocab, 1.0f),
                 ops::Error);
    EXPECT_THROW(ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, t.vocab), ops::Error);
    expect_same_bits(untouched.logits, t.logits, "logits");
  }
}

TEST(CrossEntropy, RefusesOtherShapesAndTypes) {
  Tensors t(Dtype::kF32, {3, 17, 5, 0}, 59);
  EXPECT_THROW(ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, 23), ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_forward(t.loss, t.logits, t.targets, 0), ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_forward(t.loss, t.logits, t.loss, 17), ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_forward(t.loss, t.targets, t.targets, 1), ops::Error);
}

}  // namespace
}  // namespace qstep::test
