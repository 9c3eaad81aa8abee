// Operands that are made of each other: the transpose of the same codes, and what the forward
// values are quantized to.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::Rounding;
using precision::Signs;
using precision::Source;

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
      ForwardColumn forward = expected_of_forward(expected, column_spec, in);
      forward.column.scale *= forward.factor;
      expect_reference(forward.column, column, what + ": columnwise");
    }
  }
}

}  // namespace
}  // namespace qstep::test
