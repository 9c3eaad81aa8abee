#include "ops/gemm/gemm_plan_key.h"

#include <gtest/gtest.h>

#include "tests/ops/gemm_side.h"

namespace qstep::test {
namespace {

using ops::ColumnMajor;
using ops::GemmBias;
using ops::GemmFactor;
using ops::Major;

// Element (r, c) of the matrix that the library reads, transposition included.
double element(const float* data, const ColumnMajor& x, int64_t r, int64_t c) {
  return x.transposed ? data[r * x.ld + c] : data[c * x.ld + r];
}

// What a column-major library makes of the descriptions is d of the row-major product.
TEST(GemmPlanKey, DescribesTheTransposedProduct) {
  Random random(91);
  constexpr int64_t m = 5, n = 7, k = 11;
  for (const Major a_major : {Major::kK, Major::kRows}) {
    for (const Major b_major : {Major::kK, Major::kRows}) {
      for (const int64_t gap : {0, 3}) {
        const Side a(Dtype::kF32, m, k, a_major, gap, random);
        const Side b(Dtype::kF32, n, k, b_major, gap, random);
        Guarded d(Dtype::kF32, m, n, gap);
        d.fill(random, -1, 1);
        const auto key =
            gemm_plan_key(d.tensor(), a.operand(), b.operand(), false, {}, GemmFactor::kHost);
        const auto* const left = static_cast<const float*>(b.operand().data);
        const auto* const right = static_cast<const float*>(a.operand().data);
        ASSERT_EQ(n, key.out.rows);
        ASSERT_EQ(m, key.out.cols);
        ASSERT_EQ(n, key.left.transposed ? key.left.cols : key.left.rows);
        ASSERT_EQ(k, key.left.transposed ? key.left.rows : key.left.cols);
        ASSERT_EQ(k, key.right.transposed ? key.right.cols : key.right.rows);
        ASSERT_EQ(m, key.right.transposed ? key.right.rows : key.right.cols);
        // Columns do not overlap, as the library demands.
        for (const ColumnMajor& x : {key.left, key.right, key.out}) EXPECT_GE(x.ld, x.rows);
        for (int64_t row = 0; row < m; ++row) {
          for (int64_t col = 0; col < n; ++col) {
            for (int64_t i = 0; i < k; ++i) {
              ASSERT_EQ(b.at(col, i), element(left, key.left, col, i));
              ASSERT_EQ(a.at(row, i), element(right, key.right, i, row));
            }
            // Column `row` of the library's output is row `row` of d.
            const auto* const memory = static_cast<const float*>(d.tensor().data);
            ASSERT_EQ(d.at(row, col), element(memory, key.out, col, row));
          }
        }
      }
    }
  }
}

TEST(GemmPlanKey, AlignmentIsThatOfTheAddress) {
  alignas(512) static char memory[1024];
  EXPECT_EQ(256u, ops::alignment(memory));
  EXPECT_EQ(256u, ops::alignment(memory + 256));
  EXPECT_EQ(16u, ops::alignment(memory + 48));
  EXPECT_EQ(2u, ops::alignment(memory + 2));
  EXPECT_EQ(1u, ops::alignment(memory + 3));
}

// Whatever picks another kernel, or another descriptor, is another plan; the data is not.
TEST(GemmPlanKey, DiffersWhereThePlanDoes) {
  Random random(92);
  const Side a(Dtype::kBf16, 16, 32, Major::kK, 0, random);
  const Side b(Dtype::kBf16, 24, 32, Major::kK, 0, random);
  const Side turned(Dtype::kBf16, 24, 32, Major::kRows, 0, random);
  const Guarded d(Dtype::kBf16, 16, 24), wide(Dtype::kF32, 16, 24), bias(Dtype::kBf16, 1, 24);
  const auto key = [&](const Tensor& out, const Side& second, bool accumulate, const Tensor& with,
                       GemmFactor factor) {
    return gemm_plan_key(out, a.operand(), second.operand(), accumulate, with, factor);
  };
  const auto plain = key(d, b, false, {}, GemmFactor::kHost);
  EXPECT_EQ(plain, key(d, b, false, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(wide, b, false, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(d, turned, false, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(d, b, true, {}, GemmFactor::kHost));
  EXPECT_NE(plain, key(d, b, false, {}, GemmFactor::kDevice));
  const auto biased = key(d, b, false, bias, GemmFactor::kHost);
  EXPECT_NE(plain, biased);
  EXPECT_EQ(GemmBias::kInProduct, biased.bias);
  // A bias of another type than d's is not the library's.
  EXPECT_EQ(GemmBias::kNo, key(wide, b, false, bias, GemmFactor::kHost).bias);
}

}  // namespace
}  // namespace qstep::test
