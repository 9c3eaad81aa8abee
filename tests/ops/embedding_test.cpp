#include "ops/embedding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using Values = std::vector<double>;

struct EmbeddingShape {
  int64_t batch, seq_len, channels, vocab, positions, first_position, gap;
};
constexpr EmbeddingShape kShapes[] = {{1, 1, 1, 1, 1, 0, 0},
                                      {3, 7, 17, 5, 9, 2, 3},
                                      {2, 40, 200, 60, 64, 0, 0},
                                      {4, 5, 33, 3, 5, 0, 1}};

struct Tensors {
  Tensors(Dtype dtype, const EmbeddingShape& s, uint64_t seed)
      : shape(s),
        x(dtype, s.batch * s.seq_len, s.channels, s.gap),
        wte(dtype, s.vocab, s.channels, s.gap),
        wpe(dtype, s.positions, s.channels),
        dwte(Dtype::kF32, s.vocab, s.channels, s.gap),
        dwpe(Dtype::kF32, s.positions, s.channels, s.gap),
        tokens(Dtype::kI32, 1, s.batch * s.seq_len) {
    Random random(seed);
    x.fill(random, -1, 1);
    wte.fill(random, -1, 1);
    wpe.fill(random, -1, 1);
    dwte.fill(random, -1, 1);
    dwpe.fill(random, -1, 1);
    for (int64_t n = 0; n < tokens.tensor().cols; ++n) {
      tokens.set(0, n, static_cast<double>(random.integer(0, s.vocab - 1)));
    }
  }
  int64_t token(int64_t n) const { return static_cast<int64_t>(tokens.at(0, n)); }
  void backward(const Tensor& positions, Accumulate mode) {
    ops::cpu::embedding_backward(dwte, 0, positions, x, tokens, shape.seq_len, mode);
  }
  void expect_guards_intact() const {
    for (const Guarded* g : {&x, &wte, &wpe, &dwte, &dwpe}) g->expect_guards_intact("embedding");
  }
  EmbeddingShape shape;
  Guarded x, wte, wpe, dwte, dwpe, tokens;
};

template <class F>
void for_each_case(F&& f) {
  for (const Dtype dtype : kFloatTypes) {
    for (const EmbeddingShape& s : kShapes) {
      SCOPED_TRACE(
          fmt::format("{} B {} T {} C {}", ops::name(dtype), s.batch, s.seq_len, s.channels));
      f(dtype, s);
    }
  }
}

TEST(Embedding, ForwardIsTheRoundedSum) {
  for_each_case([](Dtype dtype, const EmbeddingShape& s) {
    Tensors t(dtype, s, 81);
    const int64_t rows = s.batch * s.seq_len;
    for (const bool with_positions : {true, false}) {
      Guarded expected(dtype, rows, s.channels);
      for (int64_t n = 0; n < rows; ++n) {
        for (int64_t c = 0; c < s.channels; ++c) {
          const double position =
              with_positions ? t.wpe.at(s.first_position + n % s.seq_len, c) : 0.0;
          const auto sum = static_cast<float>(t.wte.at(t.token(n), c) + position);
          expected.set(n, c, static_cast<double>(sum));
        }
      }
      ops::cpu::embedding_forward(t.x, t.tokens, t.wte, 0,
                                  with_positions ? t.wpe.tensor() : Tensor{}, s.seq_len,
                                  s.first_position);
      expect_same_bits(expected, t.x, "x");
      t.expect_guards_intact();
    }
  });
}

// Sums of at most N + 1 terms: one rounding for each.
TEST(Embedding, BackwardAgreesWithFp64) {
  for_each_case([](Dtype dtype, const EmbeddingShape& s) {
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      Tensors t(dtype, s, 82);
      const int64_t rows = s.batch * s.seq_len;
      Values dwte = t.dwte.values();
      Values dwpe = mode == Accumulate::kYes ? t.dwpe.values() : Values(t.dwpe.values().size());
      for (int64_t n = 0; n < rows; ++n) {
        for (int64_t c = 0; c < s.channels; ++c) {
          dwte[static_cast<size_t>(t.token(n) * s.channels + c)] += t.x.at(n, c);
          dwpe[static_cast<size_t>(n % s.seq_len * s.channels + c)] += t.x.at(n, c);
        }
      }
      t.backward(t.dwpe, mode);
      const double n_terms = static_cast<double>(rows) + 1;
      const Bound bound{.absolute = n_terms * kF32Roundoff * n_terms};  // terms are below 1
      expect_within(dwte, t.dwte.values(), bound, "dwte");
      expect_within(dwpe, t.dwpe.values(), bound, "dwpe");
      t.expect_guards_intact();

      Tensors without(dtype, s, 82);
      without.backward(Tensor{}, mode);
      expect_same_bits(t.dwte, without.dwte, "dwte without positions");
    }
  });
}

// Forward and backward are each other's transpose: <dx, forward(w)> = <backward(dx), w>, here with
// integers, so that every sum is exact.
TEST(Embedding, BackwardIsTheTransposeOfForward) {
  Tensors t(Dtype::kF32, kShapes[1], 83);
  Random random(84);
  const auto integers = [&](Guarded& g) {
    for (int64_t r = 0; r < g.tensor().rows; ++r) {
      for (int64_t c = 0; c < g.tensor().cols; ++c) {
        g.set(r, c, static_cast<double>(random.integer(-9, 9)));
      }
    }
  };
  const auto dot = [](const Values& a, const Values& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  integers(t.wte);
  integers(t.wpe);
  ops::cpu::embedding_forward(t.x, t.tokens, t.wte, 0, t.wpe, t.shape.seq_len, 0);
  const Values y = t.x.values();
  integers(t.x);
  t.dwte.fill(0.0);
  t.backward(t.dwpe, Accumulate::kNo);
  EXPECT_EQ(dot(t.x.values(), y),
            dot(t.dwte.values(), t.wte.values()) + dot(t.dwpe.values(), t.wpe.values()));
}

TEST(Embedding, TouchesOnlyTheRowsOfItsTokens) {
  Tensors t(Dtype::kBf16, kShapes[2], 85), before(Dtype::kBf16, kShapes[2], 85);
  for (int64_t n = 0; n < t.tokens.tensor().cols; ++n) t.tokens.set(0, n, 7);
  t.backward(t.dwpe, Accumulate::kYes);
  for (int64_t c = 0; c < t.shape.channels; ++c) {
    for (int64_t row = 0; row < t.shape.vocab; ++row) {
      if (row == 7) continue;
      ASSERT_EQ(t.dwte.at(row, c), before.dwte.at(row, c)) << "row " << row;
    }
    for (int64_t row = t.shape.seq_len; row < t.shape.positions; ++row) {
      ASSERT_EQ(t.dwpe.at(row, c), before.dwpe.at(row, c)) << "position " << row;
    }
  }
}

TEST(Embedding, SameBitsAtAnyNumberOfThreads) {
  expect_same_bits_at_any_threads(
      [] {
        Tensors t(Dtype::kBf16, {8, 40, 200, 11, 64, 0, 3}, 86);
        t.backward(t.dwpe, Accumulate::kNo);
        ops::cpu::embedding_forward(t.x, t.tokens, t.wte, 0, t.wpe, 40, 0);
        return bits_of(t.x, t.dwte, t.dwpe);
      },
      "embedding");
}

// The first token of each rank of a group that cuts the table, and one past the last of all; ranks
// may hold different numbers of rows.
std::vector<std::vector<int64_t>> cuts(int64_t vocab) {
  return {{0, vocab}, {0, vocab / 3, vocab}, {0, 1, (vocab + 1) / 2, vocab}};
}

// The positions belong to rank 0. One rank has the token's row, the others give zeros: the sum
// rounds as that of the whole table does.
TEST(Embedding, PartsOfTheTableAddUpToTheWhole) {
  for_each_case([](Dtype dtype, const EmbeddingShape& s) {
    for (const bool with_positions : {true, false}) {
      Tensors t(dtype, s, 88);
      const Tensor wpe = with_positions ? t.wpe.tensor() : Tensor{};
      ops::cpu::embedding_forward(t.x, t.tokens, t.wte, 0, wpe, s.seq_len, s.first_position);
      for (const std::vector<int64_t>& first : cuts(s.vocab)) {
        Guarded sum(dtype, t.x.tensor().rows, s.channels);
        sum.fill(0.0);
        for (size_t rank = 0; rank + 1 < first.size(); ++rank) {
          Guarded x(dtype, t.x.tensor().rows, s.channels, s.gap);
          const Tensor wte = t.wte.tensor().row_range(first[rank], first[rank + 1] - first[rank]);
          ops::cpu::embedding_forward(x, t.tokens, wte, first[rank], rank == 0 ? wpe : Tensor{},
                                      s.seq_len, s.first_position);
          x.expect_guards_intact("x of a rank");
          for (int64_t n = 0; n < x.tensor().rows; ++n) {
            const bool ours = t.token(n) >= first[rank] && t.token(n) < first[rank + 1];
            for (int64_t c = 0; c < s.channels; ++c) {
              if (!ours && !(rank == 0 && with_positions)) {
                ASSERT_EQ(x.at(n, c), 0) << "row " << n << " of rank " << rank;
              }
              sum.set(n, c, sum.at(n, c) + x.at(n, c));
            }
          }
        }
        EXPECT_EQ(sum.values(), t.x.values()) << first.size() - 1 << " ranks";
      }
    }
  });
}

TEST(Embedding, GradientRowsOfEachRankAreThoseOfTheWhole) {
  for_each_case([](Dtype dtype, const EmbeddingShape& s) {
    Tensors whole(dtype, s, 89);
    whole.backward(whole.dwpe, Accumulate::kYes);
    for (const std::vector<int64_t>& first : cuts(s.vocab)) {
      Tensors parts(dtype, s, 89);
      const Guarded& all = parts.dwte;
      for (size_t rank = 0; rank + 1 < first.size(); ++rank) {
        const int64_t n_rows = first[rank + 1] - first[rank];
        // Sentinels where the rows of the other ranks would be.
        Guarded dwte(Dtype::kF32, n_rows, s.channels, s.gap),
            dwpe(Dtype::kF32, s.positions, s.channels);
        Guarded expected(Dtype::kF32, n_rows, s.channels);
        for (int64_t r = 0; r < n_rows; ++r) {
          for (int64_t c = 0; c < s.channels; ++c) {
            dwte.set(r, c, all.at(first[rank] + r, c));
            expected.set(r, c, whole.dwte.at(first[rank] + r, c));
          }
        }
        dwpe.assign(parts.dwpe.values());
        ops::cpu::embedding_backward(dwte, first[rank], dwpe, parts.x, parts.tokens, s.seq_len,
                                     Accumulate::kYes);
        expect_same_bits(expected, dwte, "dwte of a rank");
        expect_same_bits(whole.dwpe, dwpe, "dwpe of a rank");
        dwte.expect_guards_intact("dwte of a rank");
      }
    }
  });
}

TEST(Embedding, RefusesNegativeTokensAndPositionsOutsideTheirTable) {
  Tensors t(Dtype::kF32, kShapes[1], 87);
  const auto forward = [&](int64_t first_token, int64_t seq_len, int64_t first_position) {
    ops::cpu::embedding_forward(t.x, t.tokens, t.wte, first_token, t.wpe, seq_len, first_position);
  };
  EXPECT_THROW(forward(0, t.shape.seq_len, 3), ops::Error);
  EXPECT_THROW(forward(0, 0, 0), ops::Error);
  EXPECT_THROW(forward(-1, t.shape.seq_len, 0), ops::Error);
  EXPECT_THROW(ops::cpu::embedding_backward(t.dwte, -1, t.dwpe, t.x, t.tokens, t.shape.seq_len,
                                            Accumulate::kNo),
               ops::Error);
  const Guarded untouched = Tensors(Dtype::kF32, kShapes[1], 87).dwte;
  for (const double bad : {-1.0, -2e9}) {
    t.tokens.set(0, 20, bad);
    EXPECT_THROW(forward(0, t.shape.seq_len, 0), ops::Error);
    EXPECT_THROW(t.backward(t.dwpe, Accumulate::kNo), ops::Error);
    expect_same_bits(untouched, t.dwte, "dwte");
  }
}

// Of other ranks: beside the table by one, and as far away as a token can be.
TEST(Embedding, PassesOverTokensWithoutARow) {
  Tensors t(Dtype::kF32, kShapes[1], 90);
  const Guarded untouched = Tensors(Dtype::kF32, kShapes[1], 90).dwte;
  constexpr int64_t kFirst = 7;
  for (int64_t n = 0; n < t.tokens.tensor().cols; ++n) {
    const double others[] = {0, kFirst - 1, static_cast<double>(kFirst + t.shape.vocab),
                             0x1p31 - 1};
    t.tokens.set(0, n, others[n % 4]);
  }
  ops::cpu::embedding_backward(t.dwte, kFirst, {}, t.x, t.tokens, t.shape.seq_len, Accumulate::kNo);
  expect_same_bits(untouched, t.dwte, "dwte");
  ops::cpu::embedding_forward(t.x, t.tokens, t.wte, kFirst, {}, t.shape.seq_len, 0);
  for (const double x : t.x.values()) ASSERT_EQ(x, 0);
  t.expect_guards_intact();
}

}  // namespace
}  // namespace qstep::test
