// What the quantizers report besides: counts for the ledger, the flag of non-finite sources, the
// amax of delayed scaling.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::Headroom;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;
using precision::Source;

ops::QuantStats counted(const reference::Quantized& q, const Values& x) {
  ops::QuantStats s;
  s.elements = static_cast<double>(x.size());
  s.scale = reference::has_tensor_factor(q.spec)
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
  QuantSpec adaptive_256 = adaptive;
  adaptive_256.e4m3_max = 256;
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 32;
  QuantSpec groups = nvfp4();
  groups.amax = AmaxScope::kGroup128;
  QuantSpec rows = nvfp4();
  rows.amax = AmaxScope::kRow;
  QuantSpec floor_scale = default_spec(QuantFormat::kMxfp8E4m3);
  floor_scale.scale = ScaleRule::kPow2Floor;
  QuantSpec three_quarters = default_spec(QuantFormat::kMxfp4);
  three_quarters.scale = ScaleRule::kPow2Floor;
  three_quarters.headroom = Headroom::kThreeQuarters;
  QuantSpec fp8_rows = default_spec(QuantFormat::kFp8E4m3);
  fp8_rows.amax = AmaxScope::kRow;
  QuantSpec pow2_lines = with_block(default_spec(QuantFormat::kFp8E5m2), {1, 128});
  pow2_lines.scale = ScaleRule::kFp32Pow2;
  QuantSpec delayed = default_spec(QuantFormat::kFp8E4m3);
  delayed.amax = AmaxScope::kDelayed;
  return {nvfp4(),
          with_block(nvfp4(), {16, 16}),
          stochastic,
          adaptive,
          adaptive_256,
          with_block(adaptive_256, {16, 16}),
          ms_eden,
          groups,
          rows,
          floor_scale,
          three_quarters,
          with_block(default_spec(QuantFormat::kMxfp8E4m3), {32, 32}),
          default_spec(QuantFormat::kMxfp8E5m2),
          default_spec(QuantFormat::kMxfp4),
          default_spec(QuantFormat::kFp8E4m3),
          delayed,
          fp8_rows,
          pow2_lines,
          with_block(default_spec(QuantFormat::kFp8E4m3), {1, 128}),
          with_block(default_spec(QuantFormat::kFp8E4m3), {128, 128})};
}

void expect_plain_counts(const QuantSpec& spec, QuantInput in) {
  Quantizer quantize;
  const std::string what = describe(spec) + " on " + in.what;
  const reference::Quantized expected_row = in.expected(spec, Orientation::kRowwise);
  const reference::Quantized expected_column = in.expected(spec, Orientation::kColumnwise);
  const ops::QuantStats row_counts = counted(expected_row, in.x);
  const ops::QuantStats column_counts = counted(expected_column, in.x);
  const auto counts_of = [&](bool rowwise, bool columnwise) {
    ops::QuantStats row_stats, column_stats;
    if (rowwise) in.call.row_stats = &row_stats;
    if (columnwise) in.call.column_stats = &column_stats;
    QuantSide row = in.side(spec, Orientation::kRowwise);
    QuantSide column = in.side(spec, Orientation::kColumnwise);
    quantize(row.q, column.q, in);
    if (rowwise) expect_counts(row_counts, row_stats, what + ": rowwise");
    if (columnwise) expect_counts(column_counts, column_stats, what + ": columnwise");
    in.call.row_stats = in.call.column_stats = nullptr;
    // Counting changes nothing.
    expect_reference(expected_row, row, what);
    expect_reference(expected_column, column, what);
  };
  counts_of(true, true);
  counts_of(true, false);
  counts_of(false, true);
}

TEST(QuantizeStats, AreThoseOfAPlainCount) {
  for (const QuantSpec& spec : counted_specs()) {
    for (const Data data : {Data::kNarrow, Data::kWide, Data::kTies, Data::kZero}) {
      expect_plain_counts(spec, QuantInput(data, {128, 256}, Dtype::kBf16, 41));
    }
    expect_plain_counts(spec, QuantInput(Data::kNarrow, {128, 256}, Dtype::kF32, 44));
  }
}

// Without a transform: its groups are whole, and a tensor's dimensions multiples of them.
TEST(QuantizeStats, OfRaggedShapesCountWhatIsThere) {
  for (const QuantSpec& spec : counted_specs()) {
    if (spec.hadamard != 0) continue;
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
      for (const Shape shape : {Shape{1, 1}, Shape{50, 77}, Shape{147, 533}}) {
        expect_plain_counts(spec, QuantInput(Data::kNarrow, shape, dtype, 45, 3));
      }
    }
  }
}

// Of what the rowwise operand stands for, its factor included.
TEST(QuantizeStats, OfForwardValues) {
  Quantizer quantize;
  QuantSpec groups = nvfp4();
  groups.amax = AmaxScope::kGroup128;
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  for (const auto& [row_spec, to] : {std::pair{nvfp4(), nvfp4()},
                                     {groups, nvfp4()},
                                     {nvfp4(), groups},
                                     {mxfp8, nvfp4()},
                                     {fp8, nvfp4()},
                                     {fp8, with_block(fp8, {1, 128})}}) {
    QuantSpec column_spec = to;
    column_spec.source = Source::kForward;
    QuantInput in(Data::kNarrow, {128, 256}, Dtype::kF32, 46);
    ops::QuantStats row_stats, column_stats;
    in.call.row_stats = &row_stats;
    in.call.column_stats = &column_stats;
    QuantSide row = in.side(row_spec, Orientation::kRowwise);
    QuantSide column = in.side(column_spec, Orientation::kColumnwise);
    quantize(row.q, column.q, in);

    const reference::Quantized expected = in.expected(row_spec, Orientation::kRowwise);
    const ForwardColumn forward = expected_of_forward(expected, column_spec, in);
    ops::QuantStats counts = counted(forward.column, forward.source);
    const auto factor = static_cast<double>(forward.factor);
    counts.amax *= factor;
    counts.scale *= factor;
    counts.squared *= factor * factor;
    counts.squared_error *= factor * factor;
    const std::string what = describe(row_spec) + " then " + describe(column_spec);
    expect_counts(counted(expected, in.x), row_stats, what + ": rowwise");
    expect_counts(counts, column_stats, what + ": columnwise");
  }
}

// Each orientation by itself and both at once, with statistics and without.
TEST(QuantizeStats, NonFiniteSourcesAreCountedAndFlagged) {
  Quantizer quantize;
  for (const QuantSpec& spec : counted_specs()) {
    for (const Data data : {Data::kNarrow, Data::kInfinities, Data::kNans}) {
      QuantInput in(data, {128, 256}, Dtype::kBf16, 42);
      const auto non_finite = static_cast<double>(
          std::count_if(in.x.begin(), in.x.end(), [](float v) { return !std::isfinite(v); }));
      Guarded flag(Dtype::kI32, 1, 1);
      in.call.non_finite = flag;
      QuantSide row = in.side(spec, Orientation::kRowwise);
      QuantSide column = in.side(spec, Orientation::kColumnwise);
      const ops::QuantizedTensor none;
      for (const auto& [rowwise, columnwise] :
           {std::pair{row.q, none}, {none, column.q}, {row.q, column.q}}) {
        const std::string what =
            fmt::format("{} {}{} on {}", describe(spec), rowwise ? "rowwise" : "",
                        columnwise ? "columnwise" : "", in.what);
        ops::QuantStats row_stats, column_stats;
        in.call.row_stats = &row_stats;
        in.call.column_stats = &column_stats;
        flag.set(0, 0, 0);
        quantize(rowwise, columnwise, in);
        EXPECT_EQ(flag.at(0, 0), non_finite > 0 ? 1 : 0) << what;
        for (const auto& [side, stats] :
             {std::pair{rowwise, row_stats}, {columnwise, column_stats}}) {
          if (!side) continue;
          EXPECT_EQ(stats.non_finite, non_finite) << what;
          EXPECT_TRUE(std::isfinite(stats.amax)) << what;
        }
        in.call.row_stats = in.call.column_stats = nullptr;
        flag.set(0, 0, 0);
        quantize(rowwise, columnwise, in);
        EXPECT_EQ(flag.at(0, 0), non_finite > 0 ? 1 : 0) << what;
      }
    }
  }
}

// Finite numbers whose sums are not: flagged where a transform adds them, and only there.
TEST(QuantizeStats, AnOverflowOfTheTransformIsFlagged) {
  Quantizer quantize;
  for (const QuantSpec& spec : counted_specs()) {
    const Shape shape{128, 256};
    QuantInput in(Values(static_cast<size_t>(shape.rows * shape.cols), 0x1.fp127f), shape,
                  Dtype::kF32);
    Guarded flag(Dtype::kI32, 1, 1);
    flag.set(0, 0, 0);
    in.call.non_finite = flag;
    QuantSide row = in.side(spec, Orientation::kRowwise);
    quantize(row.q, {}, in);
    EXPECT_EQ(flag.at(0, 0), spec.hadamard > 0 ? 1 : 0) << describe(spec);
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

}  // namespace
}  // namespace qstep::test
