#include "ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using Values = std::vector<double>;

// One row longer than a block of elements, with and without a gap behind it.
template <class F>
void for_each_case(F&& f) {
  for_each_row_shape(f);
  for (const Dtype dtype : kFloatTypes) {
    f(dtype, RowShape{2, 40001, 0});
    f(dtype, RowShape{2, 40001, 3});
  }
}

TEST(Elementwise, ZeroWritesZerosAndNothingElse) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    Guarded x(dtype, s.rows, s.cols, s.gap);
    ops::cpu::zero(x);
    EXPECT_EQ(x.values(), Values(static_cast<size_t>(s.rows * s.cols), 0.0));
    x.expect_guards_intact("zero");
  });
  Guarded tokens(Dtype::kI32, 3, 7, 2);
  ops::cpu::zero(tokens);
  EXPECT_EQ(tokens.values(), Values(21, 0.0));
}

TEST(Elementwise, CastRoundsOnce) {
  for_each_case([](Dtype from, const RowShape& s) {
    for (const Dtype to : kFloatTypes) {
      SCOPED_TRACE(describe(from, s));
      Random random(71);
      Guarded x(from, s.rows, s.cols, s.gap), y(to, s.rows, s.cols, 2 * s.gap),
          expected(to, s.rows, s.cols);
      x.fill(random, -100, 100);
      ops::cpu::cast(y, x);
      expected.assign(x.values());
      expect_same_bits(expected, y, "cast");
      y.expect_guards_intact("cast");
    }
  });
}

TEST(Elementwise, AddRoundsOnce) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    SCOPED_TRACE(describe(dtype, s));
    Random random(72);
    Guarded a(dtype, s.rows, s.cols, s.gap), b(dtype, s.rows, s.cols), y(dtype, s.rows, s.cols, 1),
        expected(dtype, s.rows, s.cols);
    a.fill(random, -100, 100);
    b.fill(random, -100, 100);
    Values sum = a.values();
    const Values addend = b.values();
    for (size_t i = 0; i < sum.size(); ++i) {  // FP64 adds two floats of this size exactly
      sum[i] = static_cast<double>(static_cast<float>(sum[i] + addend[i]));
    }
    expected.assign(sum);
    const ops::Tensor both[] = {a, b};
    ops::cpu::add(y, both);
    expect_same_bits(expected, y, "add");
    y.expect_guards_intact("add");
    ops::cpu::add(a, both);
    expect_same_bits(expected, a, "add in place of a");
    a.expect_guards_intact("add in place of a");
  });
}

// Three and four: the sums in FP32, from the last to the first, and one rounding to BF16.
TEST(Elementwise, AddTakesSeveralFromTheLastToTheFirst) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    SCOPED_TRACE(describe(dtype, s));
    for (const size_t n : {3, 4}) {
      Random random(74);
      std::vector<Guarded> x;
      std::vector<ops::Tensor> views;
      for (size_t i = 0; i < n; ++i) {
        x.emplace_back(dtype, s.rows, s.cols, static_cast<int64_t>(i) * s.gap);
        x.back().fill(random, -100, 100);
      }
      for (Guarded& g : x) views.push_back(g);
      Values sum = x.back().values();
      for (size_t k = n - 1; k-- > 0;) {
        const Values addend = x[k].values();
        for (size_t i = 0; i < sum.size(); ++i) {
          sum[i] = static_cast<double>(static_cast<float>(addend[i] + sum[i]));
        }
      }
      Guarded expected(dtype, s.rows, s.cols), y(dtype, s.rows, s.cols, 1);
      expected.assign(sum);
      ops::cpu::add(y, views);
      expect_same_bits(expected, y, "add");
      y.expect_guards_intact("add");
      ops::cpu::add(x[1], views);
      expect_same_bits(expected, x[1], "add in place of the second");
      x[1].expect_guards_intact("add in place of the second");
    }
  });
}

TEST(Elementwise, SameBitsAtAnyNumberOfThreads) {
  Random random(73);
  Guarded a(Dtype::kF32, 3, 40001, 5), b(Dtype::kF32, 3, 40001), y(Dtype::kF32, 3, 40001),
      narrow(Dtype::kBf16, 3, 40001);
  a.fill(random, -1, 1);
  b.fill(random, -1, 1);
  expect_same_bits_at_any_threads(
      [&] {
        const ops::Tensor both[] = {a, b};
        ops::cpu::add(y, both);
        ops::cpu::cast(narrow, y);
        return bits_of(y, narrow);
      },
      "add and cast");
}

TEST(Elementwise, RefusesOtherShapesAndTypes) {
  Guarded x(Dtype::kF32, 3, 20), other(Dtype::kF32, 20, 3), bf16(Dtype::kBf16, 3, 20),
      tokens(Dtype::kI32, 3, 20);
  EXPECT_THROW(ops::cpu::cast(other, x), ops::Error);
  EXPECT_THROW(ops::cpu::cast(tokens, x), ops::Error);
  const auto add = [&](std::vector<ops::Tensor> addends) { ops::cpu::add(x, addends); };
  EXPECT_THROW(add({x, other}), ops::Error);
  EXPECT_THROW(add({x, bf16}), ops::Error);
  EXPECT_THROW(add({x}), ops::Error);
  EXPECT_THROW(add({x, x, x, x, x}), ops::Error);
}

}  // namespace
}  // namespace qstep::test
