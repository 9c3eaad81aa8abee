// What must hold of quantized tensors whatever the arithmetic: transposes, forward values, counts,
// Hadamard transforms that cancel, GEMMs.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;
using precision::Signs;
using precision::Source;

QuantSpec nvfp4() { return default_spec(QuantFormat::kNvfp4); }
QuantSpec with_block(QuantSpec spec, precision::BlockShape block) {
  spec.block = block;
  return spec;
}

// ---- the transpose --------------------------------------------------------------------------

std::vector<QuantSpec> transposable_specs() {
  QuantSpec adaptive = with_block(nvfp4(), {16, 16});
  adaptive.four_over_six = FourOverSix::kMae;
  adaptive.e4m3_max = 256;
  QuantSpec delayed = default_spec(QuantFormat::kFp8E5m2);
  delayed.amax = AmaxScope::kDelayed;
  return {with_block(nvfp4(), {16, 16}),
          adaptive,
          with_block(default_spec(QuantFormat::kMxfp8E4m3), {32, 32}),
          with_block(default_spec(QuantFormat::kMxfp4), {32, 32}),
          default_spec(QuantFormat::kFp8E4m3),
          delayed,
          with_block(default_spec(QuantFormat::kFp8E4m3), {128, 128})};
}

TEST(QuantizeTranspose, BothOrientationsHoldTheSameCodes) {
  Quantizer quantize;
  for (const QuantSpec& spec : transposable_specs()) {
    const std::string what = describe(spec);
    ASSERT_TRUE(transposable(spec, spec)) << what;
    const QuantInput in(Data::kNarrow, {96, 160}, Dtype::kBf16, 21);
    QuantSide row = in.side(spec, Orientation::kRowwise);
    QuantSide column = in.side(spec, Orientation::kColumnwise);
    quantize(row.q, column.q, in);
    expect_same_bits(row.values, column.values, what);
    expect_same_bits(row.scale, column.scale, what);
    for (int64_t r = 0; r < row.tile_scales.tensor().rows; ++r) {
      for (int64_t c = 0; c < row.tile_scales.tensor().cols; ++c) {
        EXPECT_EQ(row.tile_scales.at(r, c), column.tile_scales.at(c, r)) << what;
      }
    }

    const auto codes = ops::cpu::quantize_encoded(row.q, in.tensor, in.call);
    const auto turned = ops::cpu::quantize_encoded(column.q, in.tensor, in.call);
    for (int64_t r = 0; r < codes.rows; ++r) {
      for (int64_t k = 0; k < codes.k; ++k) {
        ASSERT_EQ(codes.codes[static_cast<size_t>(r * codes.k + k)],
                  turned.codes[static_cast<size_t>(k * codes.rows + r)])
            << what;
      }
    }
  }
}

// The columnwise operand may be the rowwise one's memory; it may also be asked for as the forward
// values, which it is.
TEST(QuantizeTranspose, BothOrientationsMayShareTheirValues) {
  Quantizer quantize;
  for (const QuantSpec& spec : transposable_specs()) {
    for (const Source source : {Source::kHighPrecision, Source::kForward}) {
      const QuantInput in(Data::kNarrow, {96, 160}, Dtype::kBf16, 22);
      QuantSpec column_spec = spec;
      column_spec.source = source;
      QuantSide row = in.side(spec, Orientation::kRowwise);
      QuantSide column = in.side(column_spec, Orientation::kColumnwise);
      column.q.values = row.q.values;
      quantize(row.q, column.q, in);
      expect_reference(in.expected(spec, Orientation::kRowwise), row, describe(spec));
      expect_same_bits(row.scale, column.scale, describe(spec));
    }
  }
}

// ---- forward values -------------------------------------------------------------------------

// What numerics leaves open: with a factor for the whole tensor on both sides the decoded values
// without it are quantized (they are exact in BF16) and the factors multiplied; otherwise the
// values are rounded to BF16 with their factor.
reference::Quantized expected_of_forward(const reference::Quantized& row,
                                         const QuantSpec& column_spec, const QuantInput& in) {
  reference::Options options = in.options();
  options.dtype = Dtype::kBf16;
  const bool both = ops::has_tensor_scale(row.spec) && ops::has_tensor_scale(column_spec);
  Values forward = row.values;
  if (!both) {
    forward = reference::forward_values(row);
    for (float& v : forward) v = reference::bf16(v);
  }
  reference::Quantized column = reference::quantize(forward, in.shape.rows, in.shape.cols,
                                                    column_spec, Orientation::kColumnwise, options);
  if (both) column.scale *= row.scale / row.denominator;
  return column;
}

TEST(QuantizeForward, TheColumnwiseOperandIsMadeOfWhatTheRowwiseOneDecodesTo) {
  QuantSpec adaptive = nvfp4();
  adaptive.four_over_six = FourOverSix::kMse;
  adaptive.e4m3_max = 256;
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 128;
  ms_eden.signs = Signs::kPerStep;
  QuantSpec groups = nvfp4();
  groups.amax = AmaxScope::kGroup128;
  QuantSpec rotated_groups = groups;
  rotated_groups.rounding = Rounding::kStochastic;
  rotated_groups.hadamard = 16;
  rotated_groups.signs = Signs::kPerStep;
  QuantSpec rows = nvfp4();
  rows.amax = AmaxScope::kRow;
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec fp8_lines = with_block(fp8, {1, 128});

  Quantizer quantize;
  for (const auto& [row_spec, to] : {std::pair{adaptive, ms_eden},
                                     {groups, rotated_groups},
                                     {nvfp4(), nvfp4()},
                                     {mxfp8, mxfp8},
                                     {mxfp8, nvfp4()},
                                     {fp8_lines, fp8_lines},
                                     {rows, nvfp4()},
                                     {nvfp4(), mxfp8},
                                     {nvfp4(), groups},
                                     {fp8, nvfp4()},
                                     {fp8, fp8_lines}}) {
    QuantSpec column_spec = to;
    column_spec.source = Source::kForward;
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
      const QuantInput in(Data::kNarrow, {256, 384}, dtype, 31);
      QuantSide row = in.side(row_spec, Orientation::kRowwise);
      QuantSide column = in.side(column_spec, Orientation::kColumnwise);
      quantize(row.q, column.q, in);
      const reference::Quantized expected = in.expected(row_spec, Orientation::kRowwise);
      const std::string what =
          fmt::format("{} | {} on {}", describe(row_spec), describe(column_spec), in.what);
      expect_reference(expected, row, what + ": rowwise");
      expect_reference(expected_of_forward(expected, column_spec, in), column,
                       what + ": columnwise");
    }
  }
}

// ---- counts ---------------------------------------------------------------------------------

ops::QuantStats counted(const reference::Quantized& q, const Values& x) {
  ops::QuantStats s;
  s.elements = static_cast<double>(x.size());
  s.scale = ops::has_tensor_scale(q.spec)
                ? static_cast<double>(q.scale) / static_cast<double>(q.denominator)
                : 1.0;
  s.blocks = q.spec.block.whole_tensor() ? 0.0 : static_cast<double>(q.blocks.size());
  const bool is_nvfp4 = q.spec.format == QuantFormat::kNvfp4;
  for (const reference::BlockScale& block : q.blocks) {
    if (is_nvfp4 && block.code == 0) ++s.zero_scales;
  }
  for (const float v : x) s.non_finite += std::isfinite(v) ? 0 : 1;
  // Beyond the largest value by more than half a step.
  const reference::Format& format = reference::element_format(q.spec);
  const size_t n = format.values.size();
  const float limit = format.values[n - 1] + (format.values[n - 1] - format.values[n - 2]) / 2;
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t k = 0; k < q.k; ++k) {
      const size_t i = q.index(r, k);
      const double v = static_cast<double>(q.source[i]), d = v - q.dequantized(r, k);
      if (std::isfinite(v)) s.amax = std::max(s.amax, std::fabs(v));
      if (q.source[i] != 0 && q.values[i] == 0) ++s.underflowed;
      if (std::fabs(q.scaled[i]) > limit) ++s.saturated;
      s.squared += v * v;
      s.squared_error += d * d;
    }
  }
  return s;
}

void expect_counts(const ops::QuantStats& expected, const ops::QuantStats& found,
                   const std::string& what) {
  EXPECT_EQ(expected.elements, found.elements) << what;
  EXPECT_EQ(expected.amax, found.amax) << what;
  EXPECT_NEAR(expected.scale, found.scale, expected.scale * 4 * kF32Roundoff) << what;
  EXPECT_EQ(expected.underflowed, found.underflowed) << what;
  EXPECT_EQ(expected.saturated, found.saturated) << what;
  EXPECT_EQ(expected.non_finite, found.non_finite) << what;
  EXPECT_EQ(expected.blocks, found.blocks) << what;
  EXPECT_EQ(expected.zero_scales, found.zero_scales) << what;
  // Sums of n terms that are not negative are off by at most n roundings; a difference of values
  // that were rounded up to four times by 4 u (|v| + |d|), its square by Cauchy's inequality.
  const double n = expected.elements * kF32Roundoff;
  const double u = 8 * kF32Roundoff;
  const double e = expected.squared_error, s = expected.squared;
  EXPECT_NEAR(s, found.squared, n * s) << what;
  EXPECT_NEAR(e, found.squared_error, n * e + 2 * u * std::sqrt(e * s) + u * u * s) << what;
}

std::vector<QuantSpec> counted_specs() {
  QuantSpec stochastic = nvfp4();
  stochastic.rounding = Rounding::kStochastic;
  stochastic.hadamard = 16;
  QuantSpec adaptive = nvfp4();
  adaptive.four_over_six = FourOverSix::kMae;
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 32;
  QuantSpec groups = nvfp4();
  groups.amax = AmaxScope::kGroup128;
  QuantSpec rows = nvfp4();
  rows.amax = AmaxScope::kRow;
  QuantSpec floor_scale = default_spec(QuantFormat::kMxfp8E4m3);
  floor_scale.scale = ScaleRule::kPow2Floor;
  QuantSpec delayed = default_spec(QuantFormat::kFp8E4m3);
  delayed.amax = AmaxScope::kDelayed;
  return {nvfp4(),
          with_block(nvfp4(), {16, 16}),
          stochastic,
          adaptive,
          ms_eden,
          groups,
          rows,
          floor_scale,
          default_spec(QuantFormat::kMxfp8E5m2),
          default_spec(QuantFormat::kMxfp4),
          default_spec(QuantFormat::kFp8E4m3),
          delayed,
          with_block(default_spec(QuantFormat::kFp8E4m3), {1, 128}),
          with_block(default_spec(QuantFormat::kFp8E4m3), {128, 128})};
}

TEST(QuantizeStats, AreThoseOfAPlainCount) {
  Quantizer quantize;
  for (const QuantSpec& spec : counted_specs()) {
    for (const Data data : {Data::kNarrow, Data::kWide, Data::kTies, Data::kZero}) {
      QuantInput in(data, {128, 256}, Dtype::kBf16, 41);
      ops::QuantStats row_stats, column_stats;
      in.call.row_stats = &row_stats;
      in.call.column_stats = &column_stats;
      QuantSide row = in.side(spec, Orientation::kRowwise);
      QuantSide column = in.side(spec, Orientation::kColumnwise);
      quantize(row.q, column.q, in);
      const std::string what = describe(spec) + " on " + in.what;
      const reference::Quantized expected = in.expected(spec, Orientation::kRowwise);
      expect_counts(counted(expected, in.x), row_stats, what + ": rowwise");
      expect_counts(counted(in.expected(spec, Orientation::kColumnwise), in.x), column_stats,
                    what + ": columnwise");
      // Counting changes nothing.
      expect_reference(expected, row, what);
    }
  }
}

TEST(QuantizeStats, NonFiniteSourcesAreCountedAndFlagged) {
  Quantizer quantize;
  for (const QuantSpec& spec : counted_specs()) {
    for (const Data data : {Data::kNarrow, Data::kInfinities, Data::kNans}) {
      QuantInput in(data, {128, 256}, Dtype::kBf16, 42);
      Guarded flag(Dtype::kI32, 1, 1);
      flag.set(0, 0, 0);
      in.call.non_finite = flag;
      ops::QuantStats row_stats;
      in.call.row_stats = &row_stats;
      QuantSide row = in.side(spec, Orientation::kRowwise);
      quantize(row.q, {}, in);
      EXPECT_EQ(flag.at(0, 0), data == Data::kNarrow ? 0 : 1) << describe(spec) << in.what;
      EXPECT_EQ(row_stats.non_finite,
                static_cast<double>(std::count_if(in.x.begin(), in.x.end(),
                                                  [](float v) { return !std::isfinite(v); })))
          << describe(spec) << in.what;
      EXPECT_TRUE(std::isfinite(row_stats.amax));
      // The flag stays once it is set, and is set without statistics too.
      in.call.row_stats = nullptr;
      flag.set(0, 0, 0);
      quantize(row.q, {}, in);
      EXPECT_EQ(flag.at(0, 0), data == Data::kNarrow ? 0 : 1) << describe(spec) << in.what;
    }
  }
}

TEST(QuantizeDelayed, TheLargestAmaxIsKept) {
  Quantizer quantize;
  QuantSpec spec = default_spec(QuantFormat::kFp8E4m3);
  spec.amax = AmaxScope::kDelayed;
  QuantInput in(Data::kNarrow, {48, 80}, Dtype::kBf16, 43);
  const auto amax = static_cast<double>(reference::amax_of(in.x));
  Guarded kept(Dtype::kF32, 1, 1);
  in.call.delayed_amax = kept;
  QuantSide row = in.side(spec, Orientation::kRowwise);
  QuantSide column = in.side(spec, Orientation::kColumnwise);
  for (const double before : {0.0, amax / 2, amax * 2}) {
    kept.set(0, 0, before);
    quantize(row.q, column.q, in);
    EXPECT_EQ(kept.at(0, 0), std::max(before, amax));
    kept.set(0, 0, before);
    quantize(row.q, {}, in);
    EXPECT_EQ(kept.at(0, 0), std::max(before, amax));
  }
}

// ---- Hadamard transforms cancel -------------------------------------------------------------

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

// ---- broken promises ------------------------------------------------------------------------

TEST(QuantizeErrors, WrongShapesAndTypesAreRefused) {
  Quantizer quantize;
  QuantInput in(Data::kNarrow, {32, 64}, Dtype::kBf16, 61);
  QuantSide row = in.side(nvfp4(), Orientation::kRowwise);
  QuantSide column = in.side(nvfp4(), Orientation::kColumnwise);
  EXPECT_THROW(quantize(column.q, {}, in), ops::Error);
  EXPECT_THROW(quantize({}, row.q, in), ops::Error);
  ops::QuantizedTensor no_scale = row.q;
  no_scale.scale = {};
  EXPECT_THROW(quantize(no_scale, {}, in), ops::Error);
  QuantInput other(Data::kNarrow, {16, 64}, Dtype::kBf16, 62);
  EXPECT_THROW(quantize(row.q, {}, other), ops::Error);
  QuantSide forward = in.side(nvfp4(), Orientation::kColumnwise);
  forward.q.spec.source = Source::kForward;
  EXPECT_THROW(quantize({}, forward.q, in), ops::Error);
}

TEST(QuantizeErrors, LengthsThatAreNoMultipleOfTheBlockAreRefused) {
  Quantizer quantize;
  QuantSpec rotated = with_block(default_spec(QuantFormat::kFp8E4m3), {1, 128});
  rotated.hadamard = 64;
  for (const QuantSpec& spec :
       {nvfp4(), with_block(nvfp4(), {16, 16}), default_spec(QuantFormat::kMxfp8E4m3), rotated}) {
    const int64_t k = multiple_of_k(spec) + 8;
    const QuantInput in(Data::kNarrow, {128, k}, Dtype::kBf16, 63);
    QuantSide row = in.side(spec, Orientation::kRowwise);
    EXPECT_THROW(quantize(row.q, {}, in), ops::Error) << describe(spec);
  }
}

}  // namespace
}  // namespace qstep::test
