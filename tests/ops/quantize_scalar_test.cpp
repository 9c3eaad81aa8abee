// The quantizers on one float at a time against those on sixteen side by side, bit for bit.
#include "ops/quantize/quantize_scalar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>

#include "ops/quantize/forward_source.h"
#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::QuantFormat;
using precision::Source;

struct Input {
  Input(Data data, int64_t n_rows, int64_t n_cols, Dtype type, uint64_t seed)
      : rows(n_rows),
        cols(n_cols),
        tensor(source_of(quant_data(data, n_rows, n_cols, type, seed), n_rows, n_cols, type, 3)),
        delayed_scale(Dtype::kF32, 1, 1),
        what(fmt::format("{} {} [{}, {}]", name(data), ops::name(type), n_rows, n_cols)) {
    delayed_scale.set(0, 0, 0.75);
    call.random = kRandom;
    call.delayed_scale = delayed_scale;
  }
  int64_t rows, cols;
  Guarded tensor, delayed_scale;
  ops::QuantCall call;
  std::string what;
};

void expect_same(const QuantSpec& spec, Orientation orientation, const Input& in) {
  const std::string what =
      fmt::format("{} {} on {}", describe(spec),
                  orientation == Orientation::kRowwise ? "rowwise" : "columnwise", in.what);
  QuantSide scalar(spec, orientation, in.rows, in.cols);
  QuantSide lanes(spec, orientation, in.rows, in.cols);
  const ops::EncodedTensor one = ops::quantize_scalar(scalar.q, in.tensor, in.call);
  const ops::EncodedTensor sixteen = ops::cpu::quantize_encoded(lanes.q, in.tensor, in.call);
  EXPECT_EQ(one.rows, sixteen.rows) << what;
  EXPECT_EQ(one.k, sixteen.k) << what;
  EXPECT_EQ(one.codes, sixteen.codes) << what;
  EXPECT_EQ(one.scale_rows, sixteen.scale_rows) << what;
  EXPECT_EQ(one.scale_k, sixteen.scale_k) << what;
  EXPECT_EQ(one.block_scales, sixteen.block_scales) << what;
  EXPECT_EQ(std::bit_cast<uint32_t>(one.scale), std::bit_cast<uint32_t>(sixteen.scale)) << what;
  EXPECT_EQ(scalar.bits(), lanes.bits()) << what;  // values, scale, tile scales
  QuantSide trained(spec, orientation, in.rows, in.cols);
  ops::Workspace workspace;
  const bool rowwise = orientation == Orientation::kRowwise;
  ops::cpu::quantize(rowwise ? trained.q : ops::QuantizedTensor{},
                     rowwise ? ops::QuantizedTensor{} : trained.q, in.tensor, in.call, workspace);
  EXPECT_EQ(scalar.bits(), trained.bits()) << what << " without codes";
  scalar.values.expect_guards_intact(what);
  scalar.tile_scales.expect_guards_intact(what);
}

TEST(QuantizeScalar, EverySpec) {
  uint64_t seed = 1;
  for (const QuantSpec& spec : all_quant_specs()) {
    const int64_t u = std::max(multiple_of_k(spec), multiple_of_rows(spec));
    const Data data = kAllData[seed % std::size(kAllData)];
    const Dtype dtype = seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16;
    const Input in(data, u * (1 + 47 / u), u * (1 + 79 / u), dtype, seed);
    expect_same(spec, Orientation::kRowwise, in);
    expect_same(spec, Orientation::kColumnwise, in);
    ++seed;
    if (HasFailure()) return;
  }
}

// Tensors beyond one chunk of the CPU's loops, and of shapes that are a multiple of nothing:
// without a Hadamard transform what lies beyond the end counts as zero.
TEST(QuantizeScalar, LargeAndRagged) {
  uint64_t seed = 100;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.hadamard != 0 || spec.e4m3_max == 256) continue;
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
      const Data data = kAllData[seed % std::size(kAllData)];
      for (const Input& in : {Input(data, 130, 1040, dtype, seed), Input(data, 37, 53, dtype, seed),
                              Input(data, 1, 7, dtype, seed), Input(data, 19, 1, dtype, seed)}) {
        expect_same(spec, Orientation::kRowwise, in);
        expect_same(spec, Orientation::kColumnwise, in);
      }
      ++seed;
    }
    if (HasFailure()) return;
  }
}

// Two stretches of a logical tensor: each counts its random bits from its own place.
TEST(QuantizeScalar, PartsOfATensor) {
  uint64_t seed = 200;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.rounding == precision::Rounding::kNearest || spec.e4m3_max == 256) continue;
    const int64_t u = unit_k(spec);
    for (const ops::SplitDim split : {ops::SplitDim::kRows, ops::SplitDim::kCols}) {
      const bool rows = split == ops::SplitDim::kRows;
      Input in(Data::kNarrow, rows ? 2 * u : u, rows ? u : 2 * u,
               seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
      in.call.place = {
          .split = split, .size = 5 * u, .n_stretches = 2, .stretches = {{{0, u}, {u, 3 * u}}}};
      in.what += rows ? " of rows" : " of columns";
      expect_same(spec, Orientation::kRowwise, in);
      expect_same(spec, Orientation::kColumnwise, in);
    }
    ++seed;
    if (HasFailure()) return;
  }
}

// What Source::kForward is made from, spelled out, is what cpu::quantize does in one call.
TEST(QuantizeScalar, ForwardSource) {
  QuantSpec groups = default_spec(QuantFormat::kNvfp4);
  groups.amax = precision::AmaxScope::kGroup128;
  uint64_t seed = 7;
  for (const QuantSpec& forward :
       {default_spec(QuantFormat::kNvfp4), groups, default_spec(QuantFormat::kMxfp8E4m3),
        default_spec(QuantFormat::kFp8E4m3)}) {
    for (const QuantFormat format : {QuantFormat::kNvfp4, QuantFormat::kMxfp4}) {
      QuantSpec spec = default_spec(format);
      spec.rounding = precision::Rounding::kStochastic;
      spec.hadamard = 128;
      spec.source = Source::kForward;
      const Input in(Data::kNarrow, 128, 256, Dtype::kF32, seed++);
      QuantSide row(forward, Orientation::kRowwise, in.rows, in.cols);
      QuantSide column(spec, Orientation::kColumnwise, in.rows, in.cols);
      ops::Workspace workspace;
      ops::cpu::quantize(row.q, column.q, in.tensor, in.call, workspace);

      QuantSide own_row(forward, Orientation::kRowwise, in.rows, in.cols);
      QuantSide own_column(spec, Orientation::kColumnwise, in.rows, in.cols);
      ops::quantize_scalar(own_row.q, in.tensor, in.call);
      ops::ForwardSource source = ops::forward_source(own_row.q, spec);
      ops::quantize_scalar(own_column.q, ops::view(std::span(source.values), in.rows, in.cols),
                           in.call);
      if (own_column.q.scale) *own_column.q.scale.as<float>() *= source.factor;
      const std::string what = describe(forward) + " then " + describe(spec);
      EXPECT_EQ(own_row.bits(), row.bits()) << what;
      EXPECT_EQ(own_column.bits(), column.bits()) << what;
    }
  }
}

}  // namespace
}  // namespace qstep::test
