// What the quantizers report besides: counts for the ledger, the flag of non-finite sources, the
// amax of delayed scaling.
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

}  // namespace
}  // namespace qstep::test
