#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/ops/attention_reference.h"

namespace qstep::ops {
namespace {

using test::Guarded;
using test::Random;
using namespace test::attention;

// A problem with rows apart, and everything that forward and backward write.
struct Case {
  Case(Dtype dtype, const AttentionShape& s, uint64_t seed, double size = 1.5)
      : shape(s),
        qkv(dtype, s.n_tokens(), s.qkv_width(), 3),
        d_o(dtype, s.n_tokens(), s.q_width(), 5),
        o(dtype, s.n_tokens(), s.q_width(), 2),
        lse(Dtype::kF32, s.batch * s.n_heads, s.seq_len, 1),
        dqkv(dtype, s.n_tokens(), s.qkv_width(), 7) {
    Random random(seed);
    qkv.fill(random, -size, size);
    d_o.fill(random, -size, size);
  }
  void forward() { cpu::attention_forward(o, lse, qkv, shape, workspace); }
  void backward() { cpu::attention_backward(dqkv, d_o, qkv, o, lse, shape, workspace); }

  AttentionShape shape;
  Guarded qkv, d_o, o, lse, dqkv;
  Workspace workspace;
};

class AttentionTest : public testing::TestWithParam<Dtype> {};
INSTANTIATE_TEST_SUITE_P(Types, AttentionTest, testing::Values(Dtype::kF32, Dtype::kBf16),
                         [](const auto& type) { return std::string(name(type.param)); });

TEST_P(AttentionTest, ForwardAndBackwardStayWithinTheirBounds) {
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(describe(shape, GetParam()));
    Case c(GetParam(), shape, 11);
    c.forward();
    c.backward();
    const Reference r = reference(shape, c.qkv.values(), c.d_o.values(), GetParam());
    expect_bounded(r.o, c.o, r.o_bound, "o");
    expect_bounded(r.lse, c.lse, r.lse_bound, "lse");
    expect_bounded(r.dqkv, c.dqkv, r.dqkv_bound, "dqkv");
  }
}

// Scores of several hundred: the running maximum keeps every exponential in range.
TEST_P(AttentionTest, LargeScoresStayWithinTheirBounds) {
  Case c(GetParam(), make_shape(1, 150, 2, 1, 40), 12, 30.0);
  c.forward();
  c.backward();
  const Reference r = reference(c.shape, c.qkv.values(), c.d_o.values(), GetParam());
  expect_bounded(r.o, c.o, r.o_bound, "o");
  expect_bounded(r.lse, c.lse, r.lse_bound, "lse");
  expect_bounded(r.dqkv, c.dqkv, r.dqkv_bound, "dqkv");
}

TEST(AttentionReference, GradientsMatchCentralDifferences) {
  for (const AttentionShape& shape : {make_shape(1, 5, 2, 1, 3), make_shape(2, 4, 2, 2, 2)}) {
    SCOPED_TRACE(describe(shape, Dtype::kF32));
    const Case c(Dtype::kF32, shape, 13);
    const Values d_o = c.d_o.values();
    const auto loss = [&](const Values& qkv) {
      const Reference r = reference(shape, qkv, d_o, Dtype::kF32);
      return dot(r.o.data(), d_o.data(), static_cast<int64_t>(d_o.size()));
    };
    const Values qkv = c.qkv.values();
    test::expect_gradient(loss, qkv, reference(shape, qkv, d_o, Dtype::kF32).dqkv, "dqkv");
  }
}

TEST_P(AttentionTest, SameBitsAtAnyNumberOfThreads) {
  for (const AttentionShape& shape : {make_shape(2, 150, 3, 3, 20), make_shape(1, 90, 6, 2, 36)}) {
    SCOPED_TRACE(describe(shape, GetParam()));
    Case c(GetParam(), shape, 14);
    test::expect_same_bits_at_any_threads(
        [&] {
          c.forward();
          c.backward();
          return test::bits_of(c.o, c.lse, c.dqkv);
        },
        "attention");
  }
}

// Copies row by row, in FP64, which holds both types exactly.
void copy_rows(const Guarded& to, int64_t to_row, const Guarded& from, int64_t from_row,
               int64_t n) {
  const Tensor& source = from.tensor();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < source.cols; ++j) {
      const_cast<Guarded&>(to).set(to_row + i, j, from.at(from_row + i, j));
    }
  }
}

TEST_P(AttentionTest, ARowDependsOnItsOwnPastAlone) {
  Case whole(GetParam(), make_shape(3, 201, 4, 2, 48), 15);
  whole.forward();
  for (const int64_t seq_len : {201, 77}) {  // alone, and alone without its future
    Case alone(GetParam(), make_shape(1, seq_len, 4, 2, 48), 16);
    copy_rows(alone.qkv, 0, whole.qkv, 201, seq_len);
    alone.forward();
    Guarded expected(GetParam(), seq_len, whole.shape.q_width());
    copy_rows(expected, 0, whole.o, 201, seq_len);
    test::expect_same_bits(expected, alone.o, "o");
  }
}

TEST_P(AttentionTest, CachedGivesTheBitsOfForward) {
  for (const AttentionShape& shape :
       {make_shape(1, 150, 3, 3, 20), make_shape(1, 140, 6, 2, 64), make_shape(1, 20, 20, 1, 7)}) {
    SCOPED_TRACE(describe(shape, GetParam()));
    Case c(GetParam(), shape, 17);
    c.forward();
    Guarded k_cache(GetParam(), shape.seq_len + 3, shape.kv_width(), 2);
    Guarded v_cache(GetParam(), shape.seq_len + 3, shape.kv_width(), 4);
    k_cache.fill(0);
    v_cache.fill(0);
    Guarded o(GetParam(), shape.seq_len, shape.q_width(), 1);
    int64_t position = 0;
    for (const int64_t n : {int64_t{11}, int64_t{1}, int64_t{1}, shape.seq_len - 14, int64_t{1}}) {
      AttentionShape step = shape;
      step.seq_len = n;
      cpu::attention_cached(o.tensor().row_range(position, n), k_cache, v_cache,
                            c.qkv.tensor().row_range(position, n), step, position, c.workspace);
      position += n;
    }
    test::expect_same_bits(c.o, o, "o");
    for (int64_t t = 0; t < shape.seq_len; ++t) {
      for (int64_t d = 0; d < shape.kv_width(); ++d) {
        ASSERT_EQ(c.qkv.at(t, shape.q_width() + d), k_cache.at(t, d));
        ASSERT_EQ(c.qkv.at(t, shape.q_width() + shape.kv_width() + d), v_cache.at(t, d));
      }
    }
    EXPECT_EQ(0.0, k_cache.at(shape.seq_len, 0));
    o.expect_guards_intact("o");
    k_cache.expect_guards_intact("k_cache");
    v_cache.expect_guards_intact("v_cache");
  }
}

// A NaN in a key or a value is seen by the rows from its position on, of its heads and its
// sequence; rows more than seven positions before it, other heads and other sequences keep their
// bits.
TEST_P(AttentionTest, NanReachesTheRowsThatSeeIt) {
  for (const AttentionShape& shape : {make_shape(2, 60, 2, 2, 8), make_shape(2, 60, 4, 2, 8)}) {
    for (const int64_t column : {shape.q_width() + 3, shape.q_width() + shape.kv_width() + 3}) {
      SCOPED_TRACE(describe(shape, GetParam()) + fmt::format(" column {}", column));
      constexpr int64_t kBad = 57;
      const int64_t bad_width = shape.q_width() / 2;  // the heads of the first key/value head
      Case clean(GetParam(), shape, 18);
      Case c(GetParam(), shape, 18);
      c.qkv.set(kBad, column, std::numeric_limits<double>::quiet_NaN());
      clean.forward();
      c.forward();
      const bool in_value = column >= shape.q_width() + shape.kv_width();
      for (int64_t n = 0; n < shape.n_tokens(); ++n) {
        for (int64_t col = 0; col < shape.q_width(); ++col) {
          const bool same_sequence = n < shape.seq_len, same_head = col < bad_width;
          if (same_sequence && same_head && n >= kBad) {
            const bool reached = !in_value || col % shape.head_dim == 3;
            EXPECT_EQ(reached, std::isnan(c.o.at(n, col))) << n << ' ' << col;
          } else if (!same_sequence || !same_head || n + 7 < kBad) {
            EXPECT_EQ(clean.o.at(n, col), c.o.at(n, col)) << n << ' ' << col;
          }
        }
      }
      c.backward();
      EXPECT_TRUE(std::isnan(c.dqkv.at(kBad, 0)));                     // dq of a row that sees it
      EXPECT_TRUE(std::isnan(c.dqkv.at(kBad, shape.q_width())));       // its own dk
      EXPECT_TRUE(std::isfinite(c.dqkv.at(kBad, bad_width)));          // the other head
      EXPECT_TRUE(std::isfinite(c.dqkv.at(shape.seq_len + kBad, 0)));  // the other sequence
    }
  }
}

TEST(AttentionCheck, RefusesWhatItCannotCompute) {
  const auto refused = [](const AttentionShape& shape, const std::string& part) {
    const AttentionShape real = make_shape(1, 2, 2, 1, 4);
    Case c(Dtype::kF32, real, 19);
    c.shape = shape;
    try {
      c.forward();
      ADD_FAILURE() << "accepted " << describe(shape, Dtype::kF32);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused(make_shape(1, 2, 2, 1, 257), "head_dim 257 is outside 1 .. 256");
  refused(make_shape(1, 2, 3, 2, 4), "H 3, K 2 (H must be a multiple of K)");
  refused(make_shape(1, 0, 2, 1, 4), "T 0");
  refused(make_shape(1, 3, 2, 1, 4), "attention: qkv");
}

TEST(AttentionCheck, RefusesACacheThatIsTooShort) {
  const AttentionShape shape = make_shape(1, 2, 2, 1, 4);
  Case c(Dtype::kF32, shape, 20);
  Guarded cache(Dtype::kF32, 5, 4);
  EXPECT_THROW(cpu::attention_cached(c.o, cache, cache, c.qkv, shape, 4, c.workspace), Error);
  EXPECT_THROW(cpu::attention_cached(c.o, cache, cache, c.qkv, shape, -1, c.workspace), Error);
}

}  // namespace
}  // namespace qstep::ops
