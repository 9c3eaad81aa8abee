// The amax that norms and activations leave beside their output: the largest bits of what they
// stored, and the same output as without it.
#include "ops/output_amax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/layernorm.h"
#include "ops/rmsnorm.h"
#include "tests/ops/shapes.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using ops::Activation;

constexpr float kEps = 1e-5f;

// The largest bits of a magnitude, NaN above all numbers.
uint32_t amax_of(const Guarded& output) {
  uint32_t largest = 0;
  for (const double value : output.values()) {
    largest = std::max(largest, precision::bits(static_cast<float>(value)) & 0x7FFFFFFFu);
  }
  return largest;
}

// What an input holds beside numbers.
enum class Odd : uint8_t { kNothing, kInfinity, kNan };

Guarded input(Dtype dtype, const RowShape& s, uint64_t seed, Odd odd = Odd::kNothing) {
  Random random(seed);
  Guarded x(dtype, s.rows, s.cols, s.gap);
  x.fill(random, -3, 3);
  if (odd == Odd::kNothing || s.rows == 0) return x;
  x.set(s.rows / 2, s.cols - 1,
        odd == Odd::kNan ? std::numeric_limits<double>::quiet_NaN()
                         : -std::numeric_limits<double>::infinity());
  return x;
}

// f(output, amax) twice, with an amax and without.
void expect_amax(Dtype dtype, const RowShape& out, const std::string& what,
                 const std::function<void(const Tensor&, const Tensor&)>& f) {
  Guarded plain(dtype, out.rows, out.cols, out.gap), found(dtype, out.rows, out.cols, out.gap);
  Guarded amax(Dtype::kI32, 1, 1);
  amax.set(0, 0, 0x7F800001);  // of another call: it must not stay
  f(plain, {});
  f(found, amax);
  expect_same_bits(plain, found, what);
  EXPECT_EQ(amax_of(found), static_cast<uint32_t>(amax.at(0, 0))) << what;
  amax.expect_guards_intact(what);
}

TEST(OutputAmax, OfNorms) {
  for_each_row_shape([](Dtype dtype, const RowShape& s) {
    for (const Odd odd : {Odd::kNothing, Odd::kInfinity, Odd::kNan}) {
      const std::string what =
          describe(dtype, s) + ", odd " + std::to_string(static_cast<int>(odd));
      const Guarded x = input(dtype, s, 1, odd), delta = input(dtype, s, 2);
      const RowShape row{1, s.cols, 0};
      const Guarded w = input(dtype, row, 3), b = input(dtype, row, 4);
      const Guarded sum(dtype, s.rows, s.cols, s.gap);
      const Guarded rstd(Dtype::kF32, 1, s.rows), mean(Dtype::kF32, 1, s.rows);
      expect_amax(dtype, s, "rmsnorm " + what, [&](const Tensor& y, const Tensor& amax) {
        ops::cpu::rmsnorm_forward(y, rstd, x, w, kEps, amax);
      });
      expect_amax(dtype, s, "residual rmsnorm " + what, [&](const Tensor& y, const Tensor& amax) {
        ops::cpu::residual_rmsnorm_forward(sum, y, rstd, x, delta, w, kEps, amax);
      });
      expect_amax(dtype, s, "layernorm " + what, [&](const Tensor& y, const Tensor& amax) {
        ops::cpu::layernorm_forward(y, mean, rstd, x, w, b, kEps, amax);
      });
      expect_amax(dtype, s, "residual layernorm " + what, [&](const Tensor& y, const Tensor& amax) {
        ops::cpu::residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, kEps, amax);
      });
      for (const auto mode : {ops::Accumulate::kNo, ops::Accumulate::kYes}) {
        const Guarded stream = input(dtype, s, 10);
        const Guarded dw(Dtype::kF32, 1, s.cols), db(Dtype::kF32, 1, s.cols);
        ops::Workspace workspace;
        ops::cpu::layernorm_forward(sum, mean, rstd, delta, w, b, kEps);
        const auto with_stream = [&](const Tensor& dx, const auto& backward) {
          ops::cpu::cast(dx, stream);  // what it adds to
          backward();
        };
        expect_amax(
            dtype, s, "rmsnorm backward " + what, [&](const Tensor& dx, const Tensor& amax) {
              with_stream(dx, [&] {
                ops::cpu::rmsnorm_backward(dx, dw, x, delta, w, rstd, mode, mode, workspace, amax);
              });
            });
        expect_amax(dtype, s, "layernorm backward " + what,
                    [&](const Tensor& dx, const Tensor& amax) {
                      with_stream(dx, [&] {
                        ops::cpu::layernorm_backward(dx, dw, db, x, delta, w, mean, rstd, mode,
                                                     mode, workspace, amax);
                      });
                    });
      }
    }
  });
}

TEST(OutputAmax, OfActivations) {
  for_each_row_shape([](Dtype dtype, const RowShape& s) {
    for (const Activation kind : {Activation::kGelu, Activation::kRelu2, Activation::kSwiglu}) {
      for (const Odd odd : {Odd::kNothing, Odd::kInfinity, Odd::kNan}) {
        const std::string what = describe(dtype, s) + ", kind " +
                                 std::to_string(static_cast<int>(kind)) + ", odd " +
                                 std::to_string(static_cast<int>(odd));
        const RowShape in{s.rows, ops::activation_input_width(kind, s.cols), s.gap};
        const Guarded x = input(dtype, in, 5, odd), dy = input(dtype, s, 6);
        expect_amax(dtype, s, "forward " + what, [&](const Tensor& y, const Tensor& amax) {
          ops::cpu::activation_forward(y, x, kind, amax);
        });
        expect_amax(dtype, in, "backward " + what, [&](const Tensor& dx, const Tensor& amax) {
          ops::cpu::activation_backward(dx, dy, x, kind, amax);
        });
      }
    }
  });
}

// Rows long enough for many threads and teams, the largest element in any of them.
TEST(OutputAmax, WhereverTheLargestLies) {
  const RowShape s{67, 20000, 0};
  Random random(7);
  for (int place = 0; place < 6; ++place) {
    Guarded x = input(Dtype::kBf16, s, 8);
    x.set(random.integer(0, s.rows - 1), random.integer(0, s.cols - 1), place % 2 == 0 ? 50 : -50);
    expect_amax(Dtype::kBf16, s, "relu2", [&](const Tensor& y, const Tensor& amax) {
      ops::cpu::activation_forward(y, x, Activation::kRelu2, amax);
    });
    expect_amax(Dtype::kBf16, s, "gelu", [&](const Tensor& y, const Tensor& amax) {
      ops::cpu::activation_forward(y, x, Activation::kGelu, amax);
    });
  }
}

}  // namespace
}  // namespace qstep::test
