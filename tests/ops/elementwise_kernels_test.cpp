#include "ops/elementwise_kernels.h"

#include <gtest/gtest.h>

#include <span>

#include "tests/ops/shapes.h"
#include "tests/support/compare.h"
#include "tests/support/host_launch.h"

namespace qstep::test {
namespace {

// Rows of more than one team's work, and gaps that leave the rows at multiples of 16 bytes.
template <class F>
void for_each_case(F&& f) {
  for_each_row_shape(f);
  for (const Dtype dtype : kFloatTypes) {
    for (const int64_t gap : {0, 3, 7}) f(dtype, RowShape{3, 20001, gap});
  }
}

TEST(ElementwiseKernels, CastGivesTheBitsOfTheCpu) {
  for_each_case([](Dtype from, const RowShape& s) {
    for (const Dtype to : kFloatTypes) {
      SCOPED_TRACE(describe(from, s));
      Random random(171);
      Guarded x(from, s.rows, s.cols, s.gap), expected(to, s.rows, s.cols);
      x.fill(random, -100, 100);
      ops::cpu::cast(expected, x);
      for_each_order([&](const HostLaunch& launch) {
        Guarded y(to, s.rows, s.cols, s.gap);
        ops::device::cast(launch, y, x);
        expect_same_bits(expected, y, "cast");
        y.expect_guards_intact("cast");
      });
    }
  });
}

TEST(ElementwiseKernels, AddGivesTheBitsOfTheCpuAlsoInPlace) {
  for_each_case([](Dtype dtype, const RowShape& s) {
    SCOPED_TRACE(describe(dtype, s));
    Random random(172);
    Guarded a(dtype, s.rows, s.cols, s.gap), b(dtype, s.rows, s.cols, 2 * s.gap),
        c(dtype, s.rows, s.cols), d(dtype, s.rows, s.cols, s.gap), expected(dtype, s.rows, s.cols);
    for (Guarded* const x : {&a, &b, &c, &d}) x->fill(random, -100, 100);
    const ops::Tensor all[] = {a, b, c, d};
    for (const size_t n : {2, 3, 4}) {
      const std::span<const ops::Tensor> addends = std::span(all).first(n);
      ops::cpu::add(expected, addends);
      for_each_order([&](const HostLaunch& launch) {
        Guarded y(dtype, s.rows, s.cols, s.gap);
        ops::device::add(launch, y, addends);
        expect_same_bits(expected, y, "add");
        y.expect_guards_intact("add");
      });
      ops::device::add(HostLaunch(), b, addends);
      expect_same_bits(expected, b, "add in place");
      b.expect_guards_intact("add in place");
    }
  });
}

}  // namespace
}  // namespace qstep::test
