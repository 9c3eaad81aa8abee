#include "ops/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using Values = std::vector<double>;

// The norm as the trainer takes it: sums of squares by chunk, then their norm.
void grad_norm(Guarded& norm, Guarded& g) {
  Guarded sums(Dtype::kF32, 1, ops::reduce_chunks(g.tensor().size()));
  ops::cpu::square_sums(sums, g);
  ops::cpu::norm_of_sums(norm, sums);
  sums.expect_guards_intact("square_sums");
}

constexpr int64_t kSizes[] = {1, 15, 16, 1003, 4096, 4097, 30000, 100003};

// Inside a chunk: 64 running sums and six folds. Across chunks FP64, then one rounding.
constexpr double kSumRoundings = static_cast<double>(ops::kReduceChunk) / 64 + 8;

TEST(Reduce, MeanAgreesWithFp64) {
  for (const int64_t n : kSizes) {
    Random random(91);
    Guarded x(Dtype::kF32, 1, n), out(Dtype::kF32, 1, 1);
    x.fill(random, -1, 3);
    double sum = 0, terms = 0;
    for (const double v : x.values()) {
      sum += v;
      terms += std::fabs(v);
    }
    ops::Workspace workspace;
    ops::cpu::mean(out, x, workspace);
    EXPECT_NEAR(out.at(0, 0), sum / static_cast<double>(n),
                (kSumRoundings + 1) * kF32Roundoff * terms / static_cast<double>(n))
        << n;
    out.expect_guards_intact("mean");
  }
}

TEST(Reduce, GradNormAgreesWithFp64) {
  for (const int64_t n : kSizes) {
    Random random(92);
    Guarded g(Dtype::kF32, 1, n), norm(Dtype::kF32, 1, 1);
    g.fill(random, -1e-3, 1e-3);
    double squares = 0;
    for (const double v : g.values()) squares += v * v;
    grad_norm(norm, g);
    const double expected = std::sqrt(squares);
    // The root halves the relative error of the sum.
    EXPECT_NEAR(norm.at(0, 0), expected, (kSumRoundings / 2 + 1) * kF32Roundoff * expected) << n;
    norm.expect_guards_intact("grad_norm");
  }
}

TEST(Reduce, GradNormOfNothingIsZero) {
  Guarded g(Dtype::kF32, 1, 0), norm(Dtype::kF32, 1, 1);
  grad_norm(norm, g);
  EXPECT_EQ(norm.at(0, 0), 0);
}

// What lets ranks share the work: whole chunks may be summed anywhere.
TEST(Reduce, SquareSumsOfPartsAreThoseOfTheWhole) {
  constexpr int64_t kChunks = 7, kTotal = kChunks * ops::kReduceChunk;
  Random random(95);
  Guarded g(Dtype::kF32, 1, kTotal), whole(Dtype::kF32, 1, kChunks), parts(Dtype::kF32, 1, kChunks);
  g.fill(random, -1, 1);
  ops::cpu::square_sums(whole, g);
  for (const auto& [first, n] : {std::pair<int64_t, int64_t>{3, 4}, {0, 1}, {1, 2}}) {
    ops::cpu::square_sums(parts.tensor().col_range(first, n),
                          g.tensor().col_range(first * ops::kReduceChunk, n * ops::kReduceChunk));
  }
  expect_same_bits(whole, parts, "sums");
}

TEST(Reduce, SameBitsAtAnyNumberOfThreads) {
  Random random(93);
  Guarded x(Dtype::kF32, 1, 100003), out(Dtype::kF32, 1, 1), norm(Dtype::kF32, 1, 1);
  x.fill(random, -1, 1);
  expect_same_bits_at_any_threads(
      [&] {
        ops::Workspace workspace;
        ops::cpu::mean(out, x, workspace);
        grad_norm(norm, x);
        return bits_of(out, norm);
      },
      "mean and grad_norm");
}

TEST(Reduce, NonFiniteElementsShow) {
  Random random(94);
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1e20}) {
    Guarded x(Dtype::kF32, 1, 9001), out(Dtype::kF32, 1, 1), norm(Dtype::kF32, 1, 1);
    x.fill(random, -1, 1);
    x.set(0, 4500, bad);
    ops::Workspace workspace;
    grad_norm(norm, x);
    EXPECT_FALSE(std::isfinite(norm.at(0, 0)));
    if (bad == 1e20) continue;  // its square overflows, it does not
    ops::cpu::mean(out, x, workspace);
    EXPECT_FALSE(std::isfinite(out.at(0, 0)));
  }
}

TEST(Reduce, RefusesOtherShapesAndTypes) {
  Guarded x(Dtype::kF32, 2, 10, 3), flat(Dtype::kF32, 1, 10), bf16(Dtype::kBf16, 1, 10),
      empty(Dtype::kF32, 1, 0), out(Dtype::kF32, 1, 1);
  ops::Workspace workspace;
  EXPECT_THROW(ops::cpu::mean(out, x, workspace), ops::Error);
  EXPECT_THROW(ops::cpu::mean(flat, flat, workspace), ops::Error);
  EXPECT_THROW(ops::cpu::mean(out, bf16, workspace), ops::Error);
  EXPECT_THROW(ops::cpu::mean(out, empty, workspace), ops::Error);
  EXPECT_THROW(ops::cpu::square_sums(out, x), ops::Error);
  EXPECT_THROW(ops::cpu::square_sums(flat, flat), ops::Error);
  EXPECT_THROW(ops::cpu::norm_of_sums(flat, flat), ops::Error);
}

}  // namespace
}  // namespace qstep::test
