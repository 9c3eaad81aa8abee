// Two orientations of one call that share nothing but the source: each must be what it is alone,
// whatever the other one needs (its own amax, rows, transform, random bits).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::AmaxScope;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::Rounding;

// One of every way to come to a scale, with and without a transform and random bits.
std::vector<QuantSpec> specs_of_pairs() {
  std::vector<QuantSpec> specs{nvfp4()};
  const auto add = [&](QuantSpec spec, auto&& change) {
    change(spec);
    EXPECT_TRUE(problems(spec).empty()) << describe(spec);
    specs.push_back(spec);
  };
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  add(nvfp4(), [](QuantSpec& s) { s.amax = AmaxScope::kRow; });
  add(nvfp4(), [](QuantSpec& s) { s.amax = AmaxScope::kGroup128; });
  add(nvfp4(), [](QuantSpec& s) {
    s.four_over_six = FourOverSix::kMae;
    s.e4m3_max = 256;
  });
  add(nvfp4(), [](QuantSpec& s) {
    s.block = {16, 16};
    s.four_over_six = FourOverSix::kMse;
  });
  add(nvfp4(), [](QuantSpec& s) { s.rounding = Rounding::kStochastic; });
  add(nvfp4(), [](QuantSpec& s) { s.hadamard = 16; });
  add(nvfp4(), [](QuantSpec& s) {
    s.hadamard = 128;
    s.amax = AmaxScope::kRow;
  });
  add(nvfp4(), [](QuantSpec& s) {
    s.hadamard = 128;
    s.rounding = Rounding::kMsEden;
  });
  add(default_spec(QuantFormat::kMxfp8E4m3), [](QuantSpec&) {});
  add(default_spec(QuantFormat::kMxfp4), [](QuantSpec& s) {
    s.hadamard = 32;
    s.rounding = Rounding::kStochastic;
  });
  add(fp8, [](QuantSpec&) {});
  add(fp8, [](QuantSpec& s) { s.amax = AmaxScope::kRow; });
  add(default_spec(QuantFormat::kFp8E5m2), [](QuantSpec& s) { s.amax = AmaxScope::kDelayed; });
  add(fp8, [](QuantSpec& s) { s.block = {1, 128}; });
  add(fp8, [](QuantSpec& s) { s.block = {128, 128}; });
  return specs;
}

struct Alone {
  QuantSpec spec;
  std::vector<std::byte> bits;
};

// Every spec in this orientation by itself, held against the reference.
std::vector<Alone> quantized_alone(const QuantInput& in, Orientation orientation) {
  const bool rowwise = orientation == Orientation::kRowwise;
  Quantizer quantize;
  std::vector<Alone> list;
  for (const QuantSpec& spec : specs_of_pairs()) {
    QuantSide side = in.side(spec, orientation);
    quantize(rowwise ? side.q : ops::QuantizedTensor{}, rowwise ? ops::QuantizedTensor{} : side.q,
             in);
    expect_reference(
        in.expected(spec, orientation), side,
        fmt::format("{} {} on {}", describe(spec), rowwise ? "rowwise" : "columnwise", in.what));
    list.push_back({spec, side.bits()});
  }
  return list;
}

void expect_pairs_as_alone(const QuantInput& in) {
  const std::vector<Alone> rows = quantized_alone(in, Orientation::kRowwise);
  const std::vector<Alone> columns = quantized_alone(in, Orientation::kColumnwise);
  Quantizer quantize;
  for (const Alone& row : rows) {
    for (const Alone& column : columns) {
      QuantSide row_side = in.side(row.spec, Orientation::kRowwise);
      QuantSide column_side = in.side(column.spec, Orientation::kColumnwise);
      quantize(row_side.q, column_side.q, in);
      const std::string what =
          fmt::format("{} | {} on {}", describe(row.spec), describe(column.spec), in.what);
      EXPECT_TRUE(row_side.bits() == row.bits) << what << ": rowwise";
      EXPECT_TRUE(column_side.bits() == column.bits) << what << ": columnwise";
    }
  }
}

// A unit of nothing, more than a chunk of the loops, and one line.
constexpr Shape kRagged[] = {{50, 77}, {147, 530}, {1, 19}, {33, 1}};

TEST(QuantizePairs, EachSideIsWhatItIsAlone) {
  uint64_t seed = 900;
  for (const Shape shape : kRagged) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
      expect_pairs_as_alone(QuantInput(Data::kNarrow, shape, dtype, seed++, 3));
    }
  }
}

// A NaN or an infinity that one side meets only behind its transform is no business of the other.
TEST(QuantizePairs, NanInfinityAndOverflowOfATransformStayOnTheirSide) {
  const Shape shape{50, 77};
  for (const Data data : {Data::kNans, Data::kInfinities, Data::kHuge, Data::kZero}) {
    expect_pairs_as_alone(QuantInput(data, shape, Dtype::kBf16, 950, 3));
  }
  // Finite, but for every sum of two.
  Random random(960);
  Values huge;
  for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
    const auto x = static_cast<float>(random.uniform(1.9e38, 2.1e38));
    huge.push_back(reference::bf16(random.integer(0, 1) == 0 ? x : -x));
  }
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    expect_pairs_as_alone(QuantInput(huge, shape, dtype, 3));
  }
}

}  // namespace
}  // namespace qstep::test
