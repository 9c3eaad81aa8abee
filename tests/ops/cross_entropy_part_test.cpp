#include "ops/cross_entropy_part.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/cross_entropy.h"
#include "tests/ops/cross_entropy_reference.h"
#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using Values = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct GroupShape {
  int64_t rows, ranks, columns, vocab, gap;  // columns of each rank
};
// One rank; padding on the last; on the last two, one of them nothing else; blocks of 2048 columns
// and their neighbours; no rows.
constexpr GroupShape kShapes[] = {
    {1, 1, 1, 1, 0},       {6, 1, 2054, 2049, 3},  {9, 2, 130, 257, 9},
    {9, 2, 2500, 5000, 0}, {11, 3, 17, 51, 1},     {11, 3, 2049, 6000, 0},
    {12, 4, 16, 33, 5},    {12, 4, 1300, 5003, 2}, {0, 2, 10, 17, 0}};

// The logits of all ranks: NaN where they are padding, so that reading it shows.
struct Group {
  Group(Dtype dtype, const GroupShape& s, uint64_t seed, double range = 8, double middle = 0)
      : shape(s),
        whole(dtype, s.rows, s.ranks * s.columns),
        targets(Dtype::kI32, 1, s.rows),
        parts(Dtype::kF32, 3 * s.ranks, s.rows, s.gap),
        loss(Dtype::kF32, 1, s.rows),
        lse(Dtype::kF32, 1, s.rows) {
    for (int64_t p = 0; p < s.ranks; ++p) logits.emplace_back(dtype, s.rows, s.columns, s.gap);
    Random random(seed);
    for (int64_t n = 0; n < s.rows; ++n) {
      for (int64_t v = 0; v < s.vocab; ++v) {
        set(n, v, random.uniform(middle - range, middle + range));
      }
      // The first and the last column of each rank come first.
      const int64_t boundary = (n + 1) / 2 * s.columns - n % 2;
      set_target(n, boundary < s.vocab ? boundary : random.integer(0, s.vocab - 1));
    }
  }

  void set(int64_t n, int64_t token, double value) {
    whole.set(n, token, value);
    logits[static_cast<size_t>(token / shape.columns)].set(n, token % shape.columns, value);
  }
  void fill(double value) {
    for (int64_t n = 0; n < shape.rows; ++n) {
      for (int64_t v = 0; v < shape.vocab; ++v) set(n, v, value);
    }
  }
  double gradient(int64_t n, int64_t token) const {
    return logits[static_cast<size_t>(token / shape.columns)].at(n, token % shape.columns);
  }
  void set_target(int64_t n, int64_t token) { targets.set(0, n, static_cast<double>(token)); }
  int64_t target(int64_t n) const { return static_cast<int64_t>(targets.at(0, n)); }
  Values row(int64_t n) const {
    Values x;
    for (int64_t v = 0; v < shape.vocab; ++v) x.push_back(whole.at(n, v));
    return x;
  }

  void part(int64_t rank) {
    ops::cpu::cross_entropy_part(parts.tensor().row_range(3 * rank, 3),
                                 logits[static_cast<size_t>(rank)], targets, rank * shape.columns,
                                 shape.vocab);
  }
  void forward() {
    for (int64_t p = 0; p < shape.ranks; ++p) part(p);
    ops::cpu::cross_entropy_join(loss, lse, parts);
  }
  void backward(double scale) {
    for (int64_t p = 0; p < shape.ranks; ++p) {
      ops::cpu::cross_entropy_part_backward(logits[static_cast<size_t>(p)], lse, targets,
                                            p * shape.columns, shape.vocab,
                                            static_cast<float>(scale));
    }
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&targets, &parts, &loss, &lse}) g->expect_guards_intact("part");
    for (const Guarded& g : logits) g.expect_guards_intact("logits");
  }

  GroupShape shape;
  Guarded whole, targets, parts, loss, lse;
  std::vector<Guarded> logits;  // of each rank
};

template <class F>
void for_each_case(F&& f) {
  for (const Dtype dtype : kFloatTypes) {
    for (const GroupShape& s : kShapes) {
      SCOPED_TRACE(fmt::format("{} [{}, {} x {}] vocab {} gap {}", ops::name(dtype), s.rows,
                               s.ranks, s.columns, s.vocab, s.gap));
      f(dtype, s);
    }
  }
}

TEST(CrossEntropyPart, PartsAreTheMaximumTheSumAndTheTarget) {
  for_each_case([](Dtype dtype, const GroupShape& s) {
    constexpr double kRange = 8;
    Group g(dtype, s, 61, kRange);
    g.forward();
    for (int64_t n = 0; n < s.rows; ++n) {
      for (int64_t p = 0; p < s.ranks; ++p) {
        const int64_t first = p * s.columns, last = std::min(s.vocab, first + s.columns);
        double max = -kInfinity, sum = 0;
        for (int64_t v = first; v < last; ++v) max = std::max(max, g.whole.at(n, v));
        for (int64_t v = first; v < last; ++v) sum += std::exp(g.whole.at(n, v) - max);
        const bool has_target = g.target(n) >= first && g.target(n) < last;
        EXPECT_EQ(g.parts.at(3 * p, n), max);
        EXPECT_NEAR(g.parts.at(3 * p + 1, n), sum, softmax_sum_error(s.columns, kRange) * sum);
        EXPECT_EQ(g.parts.at(3 * p + 2, n), has_target ? g.whole.at(n, g.target(n)) : 0);
      }
    }
  });
}

struct Errors {
  double loss;      // absolute
  double lse;       // absolute
  double gradient;  // of exp(x - lse), relative
};
Errors errors(const GroupShape& s, double range, double middle) {
  const double log_vocab = std::log(static_cast<double>(s.vocab));
  // Of the joined sum, all terms positive: that of the parts, m - M, its exponential (one ulp), the
  // product, and the additions.
  const double sum = softmax_sum_error(s.columns, range) +
                     (2 * range + 3 + static_cast<double>(s.ranks)) * kF32Roundoff;
  // The logarithm turns it into an absolute error, and rounds (one ulp); so do M - x and the sum of
  // the two, or the sum with M.
  const double loss = sum + 3 * kF32Roundoff * (2 * range + log_vocab);
  const double lse =
      sum + 3 * kF32Roundoff * log_vocab + kF32Roundoff * (std::fabs(middle) + range);
  // x - lse, its exponential, the scale and the product with it.
  const double gradient = lse + kF32Roundoff * (2 * range + log_vocab) + 4 * kF32Roundoff;
  return {loss, lse, gradient};
}

// Also far from zero, where the rounding of lse is the largest error.
TEST(CrossEntropyPart, JoinedPartsAgreeWithFp64) {
  for_each_case([](Dtype dtype, const GroupShape& s) {
    constexpr double kRange = 8, kScale = 0.37;
    for (const double middle : {0.0, 1000.0, -1000.0}) {
      Group g(dtype, s, 62, kRange, middle);
      g.forward();
      g.backward(kScale);
      const Errors error = errors(s, kRange, middle);
      for (int64_t n = 0; n < s.rows; ++n) {
        const CrossEntropyReference r =
            cross_entropy_reference(g.row(n), static_cast<size_t>(g.target(n)));
        EXPECT_NEAR(g.loss.at(0, n), r.loss, error.loss);
        EXPECT_NEAR(g.lse.at(0, n), r.lse, error.lse);
        for (int64_t v = 0; v < s.ranks * s.columns; ++v) {
          if (v >= s.vocab) {
            ASSERT_EQ(g.gradient(n, v), 0) << "padding";
            continue;
          }
          const double expected = kScale * r.gradient[static_cast<size_t>(v)];
          const bool at_target = v == g.target(n);
          const double probability = expected + (at_target ? kScale : 0);
          // At the target two more: the difference with 1 and the product with the scale.
          const double bound = error.gradient * probability +
                               2 * kF32Roundoff * (at_target ? kScale : 0) +
                               roundoff(dtype) * std::fabs(expected);
          ASSERT_NEAR(g.gradient(n, v), expected, bound) << "row " << n << " column " << v;
        }
      }
      g.expect_guards_intact();
    }
  });
}

TEST(CrossEntropyPart, JoinedPartsAgreeWithTheWholeOperation) {
  for_each_case([](Dtype dtype, const GroupShape& s) {
    constexpr double kRange = 8;
    Group g(dtype, s, 63, kRange);
    Guarded loss(Dtype::kF32, 1, s.rows);
    ops::cpu::cross_entropy_backward(loss, g.whole, g.targets, s.vocab, 1.0f);
    g.forward();
    g.backward(1.0);
    // One part is the whole: multiplied by exp(0), added to 0.
    if (s.ranks == 1) expect_same_bits(loss, g.loss, "loss of one rank");
    const Errors error = errors(s, kRange, 0);
    expect_within(loss.values(), g.loss.values(), Bound{.absolute = 2 * error.loss}, "loss");
    for (int64_t n = 0; n < s.rows; ++n) {
      for (int64_t v = 0; v < s.ranks * s.columns; ++v) {
        const double expected = g.whole.at(n, v);
        const double probability = v == g.target(n) ? 1 + expected : expected;
        const double bound = 2 * error.gradient * probability +
                             (v == g.target(n) ? 4 * kF32Roundoff : 0) +
                             2 * roundoff(dtype) * std::fabs(expected);
        ASSERT_NEAR(g.gradient(n, v), expected, bound) << "row " << n << " column " << v;
      }
    }
  });
}

TEST(CrossEntropyPart, SameBitsAtAnyNumberOfThreads) {
  expect_same_bits_at_any_threads(
      [] {
        Group g(Dtype::kBf16, {13, 3, 1700, 5003, 2}, 64);
        g.forward();
        g.backward(0.25);
        return bits_of(g.parts, g.loss, g.lse, g.logits[0], g.logits[1], g.logits[2]);
      },
      "cross_entropy_part");
}

// The last two ranks of eight have no column: the joined result is that of the six others.
TEST(CrossEntropyPart, RanksWithOnlyPaddingChangeNothing) {
  for (const Dtype dtype : kFloatTypes) {
    Group six(dtype, {9, 6, 40, 233, 3}, 65), eight(dtype, {9, 8, 40, 233, 3}, 65);
    six.forward();
    eight.forward();
    expect_same_bits(six.loss, eight.loss, "loss");
    expect_same_bits(six.lse, eight.lse, "lse");
    eight.backward(1.0);
    for (int64_t n = 0; n < 9; ++n) {
      for (int64_t p = 6; p < 8; ++p) {
        EXPECT_EQ(eight.parts.at(3 * p, n), -kInfinity);
        EXPECT_EQ(eight.parts.at(3 * p + 1, n), 0);
        EXPECT_EQ(eight.parts.at(3 * p + 2, n), 0);
      }
    }
    for (size_t p = 6; p < 8; ++p) {
      for (const double d : eight.logits[p].values()) ASSERT_EQ(d, 0);
    }
  }
}

// Neither overflow nor a lost loss, whichever rank holds the maximum.
TEST(CrossEntropyPart, LargeLogits) {
  constexpr double kLarge = 1e30f;
  for (const int64_t at : {0, 99, 100, 250, 299}) {
    Group g(Dtype::kF32, {2, 3, 100, 300, 0}, 66);
    g.fill(-kLarge);
    for (int64_t n = 0; n < 2; ++n) g.set(n, at, kLarge);
    g.set_target(0, at);
    g.set_target(1, 17);
    g.forward();
    EXPECT_EQ(g.loss.at(0, 0), 0);
    EXPECT_EQ(g.loss.at(0, 1), 2 * kLarge);
    EXPECT_EQ(g.lse.at(0, 0), kLarge);
    g.backward(0.5);
    for (int64_t v = 0; v < 300; ++v) {
      ASSERT_EQ(g.gradient(0, v), 0);
      ASSERT_EQ(g.gradient(1, v), v == at ? 0.5 : v == 17 ? -0.5 : 0);
    }
  }
}

// A rank with masked columns only counts like one with padding, and still has its targets.
TEST(CrossEntropyPart, MinusInfinityMasksAColumn) {
  for (const int64_t first : {0, 100, 200}) {
    Group g(Dtype::kF32, {2, 4, 100, 400, 0}, 67);
    const double logit = g.whole.at(0, 0);
    g.fill(-kInfinity);
    for (int64_t n = 0; n < 2; ++n) {
      g.set(n, first, logit);
      g.set(n, 350, logit);
    }
    g.set_target(0, first);
    g.set_target(1, first + 1);
    g.forward();
    EXPECT_NEAR(g.loss.at(0, 0), std::log(2.0), 4 * kF32Roundoff);
    EXPECT_EQ(g.loss.at(0, 1), kInfinity);
    g.set_target(1, (first + 100) % 300);
    g.forward();
    EXPECT_EQ(g.loss.at(0, 1), kInfinity) << "target in the masked columns of a rank";
    const double lse_error = (8 + 4) * kF32Roundoff;  // |lse| is below 8 + log 2
    g.backward(1.0);
    for (int64_t v = 0; v < 400; ++v) {
      if (v == first || v == 350) continue;
      ASSERT_EQ(g.gradient(0, v), 0);
    }
    EXPECT_NEAR(g.gradient(0, first), -0.5, lse_error);
    EXPECT_NEAR(g.gradient(0, 350), 0.5, lse_error);
  }
}

TEST(CrossEntropyPart, NonFiniteLogitsOfAnyRankGiveANonFiniteLoss) {
  for (const Dtype dtype : kFloatTypes) {
    for (const double bad : {kNan, kInfinity}) {
      for (const int64_t at : {0, 30, 2047, 2999, 3000, 8998}) {
        Group g(dtype, {3, 3, 3000, 8999, 0}, 68);
        g.set(1, at, bad);
        g.forward();
        EXPECT_TRUE(std::isfinite(g.loss.at(0, 0)));
        EXPECT_FALSE(std::isfinite(g.loss.at(0, 1))) << bad << " at " << at;
        EXPECT_TRUE(std::isfinite(g.loss.at(0, 2)));
      }
    }
    Group g(dtype, {1, 3, 3000, 8999, 0}, 69);
    g.fill(-kInfinity);
    g.forward();
    EXPECT_FALSE(std::isfinite(g.loss.at(0, 0)));
    g.set(0, 4000, kNan);
    g.forward();
    EXPECT_FALSE(std::isfinite(g.loss.at(0, 0)));
  }
}

// On every rank alike, also where another one has the columns in question.
TEST(CrossEntropyPart, RefusesTargetsOutsideTheVocabularyAndWritesNothing) {
  for (const double bad : {-1.0, 51.0, 2e9}) {
    Group g(Dtype::kF32, {3, 3, 20, 51, 0}, 70), untouched(Dtype::kF32, {3, 3, 20, 51, 0}, 70);
    g.targets.set(0, 2, bad);
    g.lse.fill(0.0);
    for (size_t p = 0; p < 3; ++p) {
      const int64_t first = static_cast<int64_t>(p) * 20;
      EXPECT_THROW(g.part(static_cast<int64_t>(p)), ops::Error);
      EXPECT_THROW(
          ops::cpu::cross_entropy_part_backward(g.logits[p], g.lse, g.targets, first, 51, 1.0f),
          ops::Error);
      expect_same_bits(untouched.logits[p], g.logits[p], "logits");
    }
    expect_same_bits(untouched.parts, g.parts, "parts");
  }
}

TEST(CrossEntropyPart, RefusesOtherShapesAndTypes) {
  Group g(Dtype::kF32, {3, 2, 20, 33, 0}, 71);
  const Tensor part = g.parts.tensor().row_range(0, 3);
  const auto run = [&](const Tensor& to, const Tensor& logits, const Tensor& targets,
                       int64_t first_token, int64_t vocab) {
    ops::cpu::cross_entropy_part(to, logits, targets, first_token, vocab);
  };
  EXPECT_NO_THROW(run(part, g.logits[0], g.targets, 0, 33));
  EXPECT_THROW(run(part, g.logits[0], g.targets, -1, 33), ops::Error);
  EXPECT_THROW(run(part, g.logits[0], g.targets, 0, 0), ops::Error);
  EXPECT_THROW(run(part, g.logits[0], g.loss, 0, 33), ops::Error);
  EXPECT_THROW(run(g.parts, g.logits[0], g.targets, 0, 33), ops::Error);
  EXPECT_THROW(run(part, g.targets, g.targets, 0, 33), ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_join(g.loss, g.lse, g.parts.tensor().row_range(0, 4)),
               ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_join(g.loss, g.targets, g.parts), ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_join(g.loss, g.parts, g.parts), ops::Error);
  EXPECT_THROW(ops::cpu::cross_entropy_part_backward(g.logits[0], g.targets, g.targets, 0, 33, 1),
               ops::Error);
}

}  // namespace
}  // namespace qstep::test
