#include "ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>

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
    ops::cpu::add(y, a, b);
    expect_same_bits(expected, y, "add");
    y.expect_guards_intact("add");
    ops::cpu::add(a, a, b);
    expect_same_bits(expected, a, "add in place of a");
    a.expect_guards_intact("add in place of a");
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
        ops::cpu::add(y, a, b);
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
  EXPECT_THROW(ops::cpu::add(x, x, other), ops::Error);
  EXPECT_THROW(ops::cpu::add(x, x, bf16), ops::Error);
}

}  // namespace
}  // namespace qstep::test
