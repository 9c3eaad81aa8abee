// The quantizers against the tests' reference, bit for bit.
#include "ops/quantize/quantize.h"

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
using precision::Source;

// Both orientations in one call, each alone, and their stored forms.
void expect_bits(Quantizer& quantize, const QuantSpec& row_spec, const QuantSpec& column_spec,
                 const QuantInput& in) {
  const std::string what =
      fmt::format("{} | {} on {}", describe(row_spec), describe(column_spec), in.what);
  const reference::Quantized row = in.expected(row_spec, Orientation::kRowwise);
  const reference::Quantized column = in.expected(column_spec, Orientation::kColumnwise);
  QuantSide row_side = in.side(row_spec, Orientation::kRowwise);
  QuantSide column_side = in.side(column_spec, Orientation::kColumnwise);
  quantize(row_side.q, column_side.q, in);
  expect_reference(row, row_side, what + ": rowwise of two");
  expect_reference(column, column_side, what + ": columnwise of two");

  QuantSide row_alone = in.side(row_spec, Orientation::kRowwise);
  quantize(row_alone.q, {}, in);
  EXPECT_EQ(row_alone.bits(), row_side.bits()) << what << ": rowwise alone";
  QuantSide column_alone = in.side(column_spec, Orientation::kColumnwise);
  quantize({}, column_alone.q, in);
  EXPECT_EQ(column_alone.bits(), column_side.bits()) << what << ": columnwise alone";

  QuantSide row_encoded = in.side(row_spec, Orientation::kRowwise);
  expect_reference(row, ops::cpu::quantize_encoded(row_encoded.q, in.tensor, in.call),
                   what + ": rowwise");
  EXPECT_EQ(row_encoded.bits(), row_side.bits()) << what << ": rowwise encoded";
  QuantSide column_encoded = in.side(column_spec, Orientation::kColumnwise);
  expect_reference(column, ops::cpu::quantize_encoded(column_encoded.q, in.tensor, in.call),
                   what + ": columnwise");
  EXPECT_EQ(column_encoded.bits(), column_side.bits()) << what << ": columnwise encoded";
  in.tensor.expect_guards_intact(what + ": source");
}

// Stochastic rounding of one orientation beside nearest rounding of the other, and so on.
QuantSpec partner(const QuantSpec& spec) {
  QuantSpec other = spec;
  if (spec.rounding == Rounding::kStochastic && spec.hadamard == 0) {
    other.hadamard = 16;
    if (!problems(other).empty()) other.hadamard = 0;
  }
  return other;
}

int64_t unit(const QuantSpec& spec) {
  return std::max({multiple_of_k(spec), multiple_of_k(partner(spec)), multiple_of_rows(spec)});
}

// Every combination of options that there is, on a little of everything.
TEST(Quantize, EverySpecGivesTheBitsOfTheReference) {
  Quantizer quantize;
  const std::vector<QuantSpec> specs = all_quant_specs();
  EXPECT_GT(specs.size(), 500u);
  uint64_t seed = 1;
  for (const QuantSpec& spec : specs) {
    const int64_t u = unit(spec);
    const auto data = kAllData[seed % std::size(kAllData)];
    const QuantInput in(data, {u * (1 + 47 / u), u * (1 + 79 / u)},
                        seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
    expect_bits(quantize, spec, partner(spec), in);
    ++seed;
    constexpr int kEnough = 20;  // messages
    const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
    if (test.result()->total_part_count() > kEnough) return;
  }
}

// ---- many blocks per quantizer --------------------------------------------------------------

struct Family {
  std::string name;
  QuantSpec spec;
};
void PrintTo(const Family& family, std::ostream* out) { *out << describe(family.spec); }

std::vector<Family> families() {
  std::vector<Family> list;
  const auto add = [&](std::string name, QuantSpec spec, auto&&... change) {
    (change(spec), ...);
    EXPECT_TRUE(problems(spec).empty()) << name;
    list.push_back({std::move(name), spec});
  };
  const auto two_rounding = [](QuantSpec& s) { s.scale = ScaleRule::kE4m3TwoRounding; };
  const auto square = [](QuantSpec& s) { s.block = {16, 16}; };
  const auto stochastic = [](QuantSpec& s) { s.rounding = Rounding::kStochastic; };
  const auto hadamard = [](int size) { return [size](QuantSpec& s) { s.hadamard = size; }; };
  const auto adaptive = [](FourOverSix rule, int e4m3_max) {
    return [=](QuantSpec& s) {
      s.four_over_six = rule;
      s.e4m3_max = e4m3_max;
    };
  };
  const auto amax = [](AmaxScope scope) { return [=](QuantSpec& s) { s.amax = scope; }; };
  const auto ms_eden = [](QuantSpec& s) { s.rounding = Rounding::kMsEden; };
  const auto square_mx = [](QuantSpec& s) { s.block = {32, 32}; };
  const auto floor_scale = [](QuantSpec& s) { s.scale = ScaleRule::kPow2Floor; };
  const auto three_quarters = [](QuantSpec& s) {
    s.headroom = precision::Headroom::kThreeQuarters;
  };
  const auto pow2 = [](QuantSpec& s) { s.scale = ScaleRule::kFp32Pow2; };
  const auto block128 = [](int rows) { return [=](QuantSpec& s) { s.block = {rows, 128}; }; };
  const QuantSpec mxfp4 = default_spec(QuantFormat::kMxfp4);
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const QuantSpec mxfp8_e5m2 = default_spec(QuantFormat::kMxfp8E5m2);
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec fp8_e5m2 = default_spec(QuantFormat::kFp8E5m2);

  add("Nvfp4", nvfp4());
  add("Nvfp4Square", nvfp4(), square);
  add("Nvfp4TwoRounding", nvfp4(), two_rounding);
  add("Nvfp4Stochastic", nvfp4(), stochastic);
  add("Nvfp4Hadamard16", nvfp4(), hadamard(16));
  add("Nvfp4Hadamard128Stochastic", nvfp4(), hadamard(128), stochastic);
  add("Nvfp4Row", nvfp4(), amax(AmaxScope::kRow));
  add("FourOverSixMae256", nvfp4(), adaptive(FourOverSix::kMae, 256));
  add("FourOverSixMse448", nvfp4(), adaptive(FourOverSix::kMse, 448));
  add("FourOverSixAbsMax256", nvfp4(), adaptive(FourOverSix::kAbsMax, 256));
  add("FourOverSixSquare", nvfp4(), square, adaptive(FourOverSix::kMae, 256));
  add("FourOverSixSquareMse", nvfp4(), square, adaptive(FourOverSix::kMse, 256));
  add("MsEden16", nvfp4(), ms_eden, hadamard(16));
  add("MsEden128", nvfp4(), ms_eden, hadamard(128));
  add("OuterGroups", nvfp4(), amax(AmaxScope::kGroup128));
  add("OuterGroupsStochastic", nvfp4(), amax(AmaxScope::kGroup128), stochastic, hadamard(16));
  add("Mxfp4", mxfp4);
  add("Mxfp4ThreeQuarters", mxfp4, floor_scale, three_quarters, stochastic, hadamard(64));
  add("Mxfp8E4m3", mxfp8);
  add("Mxfp8E4m3Square", mxfp8, square_mx);
  add("Mxfp8E4m3Floor", mxfp8, floor_scale);
  add("Mxfp8E5m2", mxfp8_e5m2);
  add("Fp8Current", fp8);
  add("Fp8CurrentE5m2", fp8_e5m2, pow2);
  add("Fp8Delayed", fp8, amax(AmaxScope::kDelayed));
  add("Fp8Row", fp8, amax(AmaxScope::kRow));
  add("Fp8Block1x128", fp8, block128(1));
  add("Fp8Block128x128", fp8, block128(128), pow2);
  return list;
}

class QuantizeFamily : public testing::TestWithParam<Family> {};

// A million blocks where a block is a part of one line (1x16, 1x32, 1x128). Elsewhere sixteen
// million elements: 65 thousand blocks of 16x16, 18 thousand of 32x32, 1,152 of 128x128, 38
// thousand rows with a factor of their own, 84 whole tensors.
int64_t elements_of_the_test(const QuantSpec& spec) {
  return spec.block.rows == 1 ? int64_t{1000000} * spec.block.k : int64_t{16} * 1000000;
}

// Both orientations of tensors of every kind.
TEST_P(QuantizeFamily, ManyBlocksGiveTheBitsOfTheReference) {
  Quantizer quantize;
  const QuantSpec spec = GetParam().spec;
  int64_t n_elements = 0;
  uint64_t seed = 1000;
  while (n_elements < elements_of_the_test(spec)) {
    for (const Data data : kFiniteData) {
      const QuantInput in(data, {384, 512}, seed % 2 == 0 ? Dtype::kBf16 : Dtype::kF32, seed);
      ++seed;
      QuantSide row = in.side(spec, Orientation::kRowwise);
      QuantSide column = in.side(spec, Orientation::kColumnwise);
      quantize(row.q, column.q, in);
      const std::string what = describe(spec) + " on " + in.what;
      expect_reference(in.expected(spec, Orientation::kRowwise), row, what + ": rowwise");
      expect_reference(in.expected(spec, Orientation::kColumnwise), column, what + ": columnwise");
      n_elements += 2 * 384 * 512;
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeFamily, testing::ValuesIn(families()),
                         [](const auto& instance) { return instance.param.name; });

// ---- shapes ---------------------------------------------------------------------------------

// From the smallest to some that are a multiple of nothing but what the spec asks for; strided
// sources and values; nothing at all.
TEST_P(QuantizeFamily, EveryShape) {
  Quantizer quantize;
  const QuantSpec spec = GetParam().spec;
  const int64_t k = multiple_of_k(spec), n = multiple_of_rows(spec), both = std::max(k, n);
  uint64_t seed = 1;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const Shape shape :
         {Shape{both, both}, Shape{both, 3 * both}, Shape{7 * both, 5 * both}}) {
      for (const int64_t gap : {0, 5}) {
        expect_bits(quantize, spec, spec, QuantInput(Data::kNarrow, shape, dtype, seed++, gap));
      }
    }
    for (const Shape shape : {Shape{n, k}, Shape{5 * n, 3 * k}, Shape{37 * n, 2 * k},
                              Shape{131 * n, 19 * k}, Shape{n, 0}, Shape{0, k}, Shape{0, 0}}) {
      const QuantInput rows(Data::kNarrow, shape, dtype, seed++, 3);
      QuantSide row = rows.side(spec, Orientation::kRowwise, 7);
      quantize(row.q, {}, rows);
      expect_reference(rows.expected(spec, Orientation::kRowwise), row,
                       describe(spec) + " rowwise on " + rows.what);
      const QuantInput columns(Data::kNarrow, {shape.cols, shape.rows}, dtype, seed++, 3);
      QuantSide column = columns.side(spec, Orientation::kColumnwise, 7);
      quantize({}, column.q, columns);
      expect_reference(columns.expected(spec, Orientation::kColumnwise), column,
                       describe(spec) + " columnwise on " + columns.what);
    }
  }
}

// Lengths that are a multiple of nothing: zeros stand for what a block lacks, and nothing outside
// the tensor is read or written.
TEST_P(QuantizeFamily, RaggedShapes) {
  Quantizer quantize;
  const QuantSpec spec = GetParam().spec;
  uint64_t seed = 1;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const Shape shape :
         {Shape{1, 1}, Shape{3, 17}, Shape{19, 5}, Shape{50, 77}, Shape{147, 333}}) {
      const QuantInput in(Data::kNarrow, shape, dtype, seed++, 3);
      for (const Orientation orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
        QuantSide side = in.side(spec, orientation, 5);
        const bool rowwise = orientation == Orientation::kRowwise;
        const std::string what =
            fmt::format("{} {} on {}", describe(spec), rowwise ? "rowwise" : "columnwise", in.what);
        const reference::Quantized expected = in.expected(spec, orientation);
        quantize(rowwise ? side.q : ops::QuantizedTensor{},
                 rowwise ? ops::QuantizedTensor{} : side.q, in);
        expect_reference(expected, side, what);
        expect_reference(expected, ops::cpu::quantize_encoded(side.q, in.tensor, in.call), what);
      }
      expect_bits(quantize, spec, spec, in);
    }
  }
}

TEST_P(QuantizeFamily, InfinitiesAndNans) {
  Quantizer quantize;
  const QuantSpec spec = GetParam().spec;
  for (const Data data : {Data::kInfinities, Data::kNans}) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
      const QuantInput in(data, {128, 256}, dtype, 11);
      expect_bits(quantize, spec, spec, in);
    }
  }
}

TEST_P(QuantizeFamily, TheSameBitsAtAnyThreads) {
  const QuantSpec spec = GetParam().spec;
  const QuantInput in(Data::kNarrow, {384, 640}, Dtype::kBf16, 5);
  expect_same_bits_at_any_threads(
      [&] {
        Quantizer quantize;
        QuantSide row = in.side(spec, Orientation::kRowwise);
        QuantSide column = in.side(spec, Orientation::kColumnwise);
        quantize(row.q, column.q, in);
        std::vector<std::byte> all = row.bits();
        const std::vector<std::byte> more = column.bits();
        all.insert(all.end(), more.begin(), more.end());
        return all;
      },
      describe(spec));
}

}  // namespace
}  // namespace qstep::test
