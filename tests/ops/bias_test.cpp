#include "ops/bias.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using Values = std::vector<double>;

TEST(Bias, BackwardAgreesWithFp64) {
  for_each_row_shape([](Dtype dtype, const RowShape& shape) {
    SCOPED_TRACE(describe(dtype, shape));
    Random random(61);
    Guarded dy(dtype, shape.rows, shape.cols, shape.gap), db(Dtype::kF32, 1, shape.cols);
    dy.fill(random, -1, 1);
    ops::Workspace workspace;
    for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
      Values expected(static_cast<size_t>(shape.cols)), terms(expected.size());
      if (mode == Accumulate::kYes) expected = db.fill(random, -1, 1).values();
      for (size_t c = 0; c < terms.size(); ++c) terms[c] = std::fabs(expected[c]);
      for (int64_t n = 0; n < shape.rows; ++n) {
        for (size_t c = 0; c < expected.size(); ++c) {
          expected[c] += dy.at(n, static_cast<int64_t>(c));
          terms[c] += std::fabs(dy.at(n, static_cast<int64_t>(c)));
        }
      }
      ops::cpu::bias_backward(db, dy, mode, workspace);
      // At most one rounding for each addition.
      const double roundings = static_cast<double>(shape.rows) + 1;
      expect_within(
          expected, db.values(), [&](size_t c) { return roundings * kF32Roundoff * terms[c]; },
          "db");
      db.expect_guards_intact("db");
      dy.expect_guards_intact("dy");
    }
  });
}

TEST(Bias, SameBitsAtAnyNumberOfThreads) {
  Random random(62);
  Guarded dy(Dtype::kBf16, 331, 205, 3), db(Dtype::kF32, 1, 205);
  dy.fill(random, -1, 1);
  expect_same_bits_at_any_threads(
      [&] {
        ops::Workspace workspace;
        ops::cpu::bias_backward(db, dy, Accumulate::kNo, workspace);
        return bits_of(db);
      },
      "bias_backward");
}

TEST(Bias, RefusesOtherShapesAndTypes) {
  Guarded dy(Dtype::kBf16, 3, 20), short_db(Dtype::kF32, 1, 19), bf16_db(Dtype::kBf16, 1, 20);
  ops::Workspace workspace;
  EXPECT_THROW(ops::cpu::bias_backward(short_db, dy, Accumulate::kNo, workspace), ops::Error);
  EXPECT_THROW(ops::cpu::bias_backward(bf16_db, dy, Accumulate::kNo, workspace), ops::Error);
}

}  // namespace
}  // namespace qstep::test
