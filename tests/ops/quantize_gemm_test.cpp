// A GEMM of quantized operands against the FP64 product of what the reference says they stand for.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using precision::AmaxScope;
using precision::FourOverSix;
using precision::Headroom;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;

std::vector<QuantSpec> specs_of_gemms() {
  QuantSpec adaptive = nvfp4();
  adaptive.four_over_six = FourOverSix::kMae;
  adaptive.e4m3_max = 256;
  QuantSpec room = nvfp4();
  room.headroom = Headroom::kSixteenSeventeenths;
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 128;
  QuantSpec groups = nvfp4();
  groups.amax = AmaxScope::kGroup128;
  QuantSpec rows = nvfp4();
  rows.amax = AmaxScope::kRow;
  QuantSpec three_quarters = default_spec(QuantFormat::kMxfp4);
  three_quarters.scale = ScaleRule::kPow2Floor;
  three_quarters.headroom = Headroom::kThreeQuarters;
  three_quarters.rounding = Rounding::kStochastic;
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  QuantSpec fp8_rows = fp8;
  fp8_rows.amax = AmaxScope::kRow;
  QuantSpec pow2_lines = with_block(fp8, {1, 128});
  pow2_lines.scale = ScaleRule::kFp32Pow2;
  return {nvfp4(),        adaptive, room,       ms_eden,
          groups,         rows,     fp8_rows,   default_spec(QuantFormat::kMxfp8E4m3),
          three_quarters, fp8,      pow2_lines, with_block(fp8, {1, 128})};
}

// d[m,n] = sum_k a[k,m] b[k,n], both operands columnwise as in wgrad, or a[m,k] b[n,k].
void expect_product(ops::Ops& ops, const QuantSpec& a_spec, const QuantSpec& b_spec,
                    Orientation orientation) {
  constexpr int64_t kM = 48, kN = 64, kK = 384;
  const auto shape = [&](int64_t n) {
    return orientation == Orientation::kRowwise ? Shape{n, kK} : Shape{kK, n};
  };
  const QuantInput a(Data::kNarrow, shape(kM), Dtype::kBf16, 81);
  const QuantInput b(Data::kNarrow, shape(kN), Dtype::kBf16, 82);
  QuantSide a_side = a.side(a_spec, orientation), b_side = b.side(b_spec, orientation);
  const auto quantize = [&](QuantSide& side, const QuantInput& in) {
    const bool rowwise = orientation == Orientation::kRowwise;
    ops.quantize(rowwise ? side.q : ops::QuantizedTensor{},
                 rowwise ? ops::QuantizedTensor{} : side.q, in.tensor, in.call);
  };
  quantize(a_side, a);
  quantize(b_side, b);
  Guarded d(Dtype::kF32, kM, kN);
  ops.gemm(d, operand(a_side.q), operand(b_side.q), 1.0f, Accumulate::kNo);

  const reference::Quantized a_stands = a.expected(a_spec, orientation);
  const reference::Quantized b_stands = b.expected(b_spec, orientation);
  std::vector<double> exact, sizes;
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kN; ++n) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < kK; ++k) {
        const double term = a_stands.dequantized(m, k) * b_stands.dequantized(n, k);
        sum += term;
        size += std::fabs(term);
      }
      exact.push_back(sum);
      sizes.push_back(size);
    }
  }
  // Products of decoded values are exact in FP32 but for E4M3 times E4M3 sums; each of kK additions
  // in any order rounds once, the factors a few times more.
  constexpr double kFactors = 16;
  expect_within(
      exact, d.values(),
      [&](size_t i) { return (static_cast<double>(kK) + kFactors) * kF32Roundoff * sizes[i]; },
      fmt::format("{} times {}", describe(a_spec), describe(b_spec)));
}

TEST(QuantizeGemm, IsTheProductOfTheDequantizedValues) {
  const std::unique_ptr<ops::Ops> ops = ops::make_cpu_ops();
  const std::vector<QuantSpec> specs = specs_of_gemms();
  for (size_t i = 0; i < specs.size(); ++i) {
    for (const Orientation orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
      expect_product(*ops, specs[i], specs[i], orientation);
      expect_product(*ops, specs[i], specs[(i + 1) % specs.size()], orientation);
    }
  }
}

}  // namespace
}  // namespace qstep::test
