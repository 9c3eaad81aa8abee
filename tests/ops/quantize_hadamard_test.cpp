// Hadamard transforms of both operands of a GEMM cancel.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::QuantFormat;
using precision::ScaleRule;
using precision::Signs;

// One number per group of d and column: its transform is that number over sqrt(d), plus or minus,
// at every position. For d = 16 and 64 that is a value of E4M3 again; under scales that are powers
// of two quantization is exact, and so is the product over tokens.
TEST(QuantizeHadamard, LeavesTheProductOfBothOperandsUnchanged) {
  constexpr int64_t kTokens = 256, kOut = 32, kIn = 48;
  Quantizer quantize;
  Random random(51);
  for (const int size : {16, 64}) {
    for (const Signs signs : {Signs::kFixed, Signs::kPerLayer, Signs::kPerStep}) {
      const auto sparse = [&](int64_t width) {
        Values x(static_cast<size_t>(kTokens * width), 0.0f);
        for (int64_t group = 0; group < kTokens; group += size) {
          // The same token for all columns, so that the products are not all zero.
          const int64_t token = group + size / 2 - 1;
          for (int64_t c = 0; c < width; ++c) {
            const auto number = static_cast<float>(random.integer(8, 15));
            x[static_cast<size_t>(token * width + c)] =
                random.integer(0, 1) == 0 ? number : -number;
          }
        }
        return x;
      };
      QuantSpec spec = with_block(default_spec(QuantFormat::kFp8E4m3), {1, 128});
      spec.scale = ScaleRule::kFp32Pow2;
      spec.hadamard = size;
      spec.signs = signs;
      QuantInput dy(sparse(kOut), {kTokens, kOut}, Dtype::kBf16);
      QuantInput x(sparse(kIn), {kTokens, kIn}, Dtype::kBf16);
      dy.call.random.slot = 2;
      x.call.random.slot = 0;
      QuantSide dy_q = dy.side(spec, Orientation::kColumnwise);
      QuantSide x_q = x.side(spec, Orientation::kColumnwise);
      quantize({}, dy_q.q, dy);
      quantize({}, x_q.q, x);
      for (int64_t o = 0; o < kOut; ++o) {
        for (int64_t i = 0; i < kIn; ++i) {
          double exact = 0, found = 0;
          for (int64_t t = 0; t < kTokens; ++t) {
            exact += dy.tensor.at(t, o) * x.tensor.at(t, i);
            found += dy_q.values.at(t, o) * x_q.values.at(t, i);
          }
          ASSERT_EQ(exact, found) << describe(spec) << " at " << o << ", " << i;
        }
      }
    }
  }
}

// Dense operands of every size: what quantization takes away from each, by Cauchy's inequality, is
// all that the product loses. (Signs that differ between the operands would lose everything.)
TEST(QuantizeHadamard, OfEverySizeLosesNoMoreThanTheRoundingOfItsOperands) {
  constexpr int64_t kTokens = 256, kWidth = 32;
  Quantizer quantize;
  for (const int size : {16, 32, 64, 128}) {
    for (const Signs signs : {Signs::kFixed, Signs::kPerLayer, Signs::kPerStep}) {
      QuantSpec spec = with_block(default_spec(QuantFormat::kFp8E4m3), {1, 128});
      spec.hadamard = size;
      spec.signs = signs;
      QuantInput dy(Data::kNarrow, {kTokens, kWidth}, Dtype::kBf16, 52);
      QuantInput x(dy.x, {kTokens, kWidth}, Dtype::kBf16);
      dy.call.random.slot = 2;
      x.call.random.slot = 0;
      const reference::Quantized a = dy.expected(spec, Orientation::kColumnwise);
      const reference::Quantized b = x.expected(spec, Orientation::kColumnwise);
      QuantSide a_side = dy.side(spec, Orientation::kColumnwise);
      QuantSide b_side = x.side(spec, Orientation::kColumnwise);
      quantize({}, a_side.q, dy);
      quantize({}, b_side.q, x);
      expect_reference(a, a_side, describe(spec));
      expect_reference(b, b_side, describe(spec));
      for (int64_t row = 0; row < kWidth; ++row) {
        double exact = 0, found = 0, norm = 0, lost = 0;
        for (int64_t t = 0; t < kTokens; ++t) {
          const double v = dy.tensor.at(t, row), q = a.dequantized(row, t);
          exact += v * v;
          found += q * b.dequantized(row, t);
          const double rotated = static_cast<double>(a.source[a.index(row, t)]);
          norm += rotated * rotated;
          lost += (q - rotated) * (q - rotated);
        }
        // The transform itself is off by BF16's rounding of its output.
        const double bound = 2 * std::sqrt(norm * lost) + lost + 3 * kBf16Roundoff * norm;
        EXPECT_LE(std::fabs(found - exact), bound) << describe(spec);
        EXPECT_LE(bound, 0.2 * norm);  // so that the test can fail
      }
    }
  }
}

}  // namespace
}  // namespace qstep::test
