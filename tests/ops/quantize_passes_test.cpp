// The GPU's passes, thread by thread on the host, against the CPU's quantizers, bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "ops/quantize/quantize_calls.h"
#include "tests/ops/quantize_host_launch.h"
#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using ops::LogicalPlace;
using ops::QuantizedTensor;
using ops::QuantStats;
using ops::SplitDim;
using precision::AmaxScope;
using precision::BlockShape;
using precision::FourOverSix;
using precision::QuantFormat;
using precision::Rounding;
using precision::Source;

// What a call leaves beside the tensors.
struct Beside {
  explicit Beside(QuantInput& in) : delayed_amax(Dtype::kF32, 1, 1), non_finite(Dtype::kI32, 1, 1) {
    delayed_amax.set(0, 0, 0.125);
    non_finite.set(0, 0, 0);
    in.call.delayed_amax = delayed_amax;
    in.call.non_finite = non_finite;
  }
  std::vector<std::byte> bits() const { return bits_of(delayed_amax, non_finite); }
  Guarded delayed_amax, non_finite;
};

void expect_same_counts(const QuantStats& expected, const QuantStats& found,
                        const std::string& what) {
  EXPECT_EQ(expected.elements, found.elements) << what;
  EXPECT_EQ(expected.underflowed, found.underflowed) << what;
  EXPECT_EQ(expected.saturated, found.saturated) << what;
  EXPECT_EQ(expected.non_finite, found.non_finite) << what;
  EXPECT_EQ(expected.blocks, found.blocks) << what;
  EXPECT_EQ(expected.zero_scales, found.zero_scales) << what;
  EXPECT_EQ(expected.amax, found.amax) << what;
  EXPECT_EQ(expected.scale, found.scale) << what;
  // The same squares of FP32 numbers, each exact in FP64, in another order: n roundings of 2^-53.
  const double bound = expected.elements * 0x1p-53 * 2;
  const auto expect_sum = [&](double a, double b) {
    if (std::isfinite(a) || std::isfinite(b)) {
      EXPECT_NEAR(a, b, bound * a) << what;
    }
  };
  expect_sum(expected.squared, found.squared);
  expect_sum(expected.squared_error, found.squared_error);
}

enum class Sides : uint8_t { kRow, kColumn, kBoth };

// Both backends on one input: every bit of both orientations, the amax, the flag, and the counts.
void expect_same(const QuantSpec& row_spec, const QuantSpec& column_spec, Sides sides,
                 QuantInput& in, bool counted, int64_t gap, bool backwards = false) {
  const std::string what =
      fmt::format("{} / {}, sides {}, {}{}", describe(row_spec), describe(column_spec),
                  static_cast<int>(sides), in.what, counted ? ", counted" : "");
  const auto run = [&](const auto& quantize, QuantSide& row, QuantSide& column, QuantStats* stats) {
    const ops::QuantCall before = in.call;
    in.call.row_stats = counted && sides != Sides::kColumn ? stats : nullptr;
    in.call.column_stats = counted && sides != Sides::kRow ? stats + 1 : nullptr;
    Beside beside(in);
    quantize(sides == Sides::kColumn ? QuantizedTensor{} : row.q,
             sides == Sides::kRow ? QuantizedTensor{} : column.q);
    in.call = before;  // what it pointed at is gone afterwards
    beside.delayed_amax.expect_guards_intact(what);
    return beside.bits();
  };
  QuantSide row = in.side(row_spec, Orientation::kRowwise, gap);
  QuantSide column = in.side(column_spec, Orientation::kColumnwise, gap);
  QuantSide host_row = in.side(row_spec, Orientation::kRowwise, gap);
  QuantSide host_column = in.side(column_spec, Orientation::kColumnwise, gap);
  QuantStats stats[2], host_stats[2];
  HostQuantizeLaunch launch(backwards);
  ops::Workspace workspace;
  const auto found = run(
      [&](const QuantizedTensor& r, const QuantizedTensor& c) {
        ops::device::quantize_with(launch, r, c, in.tensor, in.call);
      },
      row, column, stats);
  const auto expected = run(
      [&](const QuantizedTensor& r, const QuantizedTensor& c) {
        ops::cpu::quantize(r, c, in.tensor, in.call, workspace);
      },
      host_row, host_column, host_stats);
  EXPECT_EQ(expected, found) << what << ": amax or flag";
  EXPECT_EQ(host_row.bits(), row.bits()) << what << ": rowwise";
  EXPECT_EQ(host_column.bits(), column.bits()) << what << ": columnwise";
  for (const QuantSide* const side : {&row, &column}) {
    side->values.expect_guards_intact(what);
    side->tile_scales.expect_guards_intact(what);
  }
  if (counted) {
    expect_same_counts(host_stats[0], stats[0], what + ": rowwise");
    expect_same_counts(host_stats[1], stats[1], what + ": columnwise");
  }
  // A count means a wait, and nothing else does.
  const int n_counts = !counted                                                       ? 0
                       : sides != Sides::kBoth || transposable(row_spec, column_spec) ? 1
                                                                                      : 2;
  EXPECT_EQ(n_counts, launch.downloads()) << what;
}

// A shape with whole units of all specs.
Shape whole_shape(std::initializer_list<QuantSpec> specs, int64_t rows, int64_t cols) {
  int64_t u = 1;
  for (const QuantSpec& s : specs) {
    u = std::max<int64_t>({u, multiple_of_k(s), multiple_of_rows(s)});
  }
  return {u * (1 + rows / u), u * (1 + cols / u)};
}

TEST(QuantizePasses, EverySpec) {
  uint64_t seed = 1;
  for (const QuantSpec& spec : all_quant_specs()) {
    const Data data = kAllData[seed % std::size(kAllData)];
    const Dtype dtype = seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16;
    QuantInput in(data, whole_shape({spec}, 40, 72), dtype, seed, seed % 2 == 0 ? 8 : 3);
    expect_same(spec, spec, static_cast<Sides>(seed % 3), in, seed % 5 == 0, seed % 4,
                seed % 2 == 0);
    ++seed;
    if (HasFailure()) return;
  }
}

// Shapes that are a multiple of nothing, and several tiles in either direction.
TEST(QuantizePasses, LargeAndRagged) {
  uint64_t seed = 100;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.hadamard != 0 || spec.e4m3_max == 256) continue;
    const Data data = kAllData[seed % std::size(kAllData)];
    const Dtype dtype = seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16;
    for (const Shape shape : {Shape{130, 275}, Shape{37, 53}, Shape{1, 7}, Shape{19, 1}}) {
      QuantInput in(data, shape, dtype, seed, seed % 4);
      expect_same(spec, spec, Sides::kBoth, in, seed % 7 == 0, seed % 3);
      ++seed;
    }
    if (HasFailure()) return;
  }
}

// The pairs of training: units of one and of two lengths, squares beside lines.
TEST(QuantizePasses, PairsOfSpecs) {
  QuantSpec turned = nvfp4();
  turned.hadamard = 16;
  QuantSpec gradient = turned;
  gradient.rounding = Rounding::kStochastic;
  QuantSpec long_turn = gradient;
  long_turn.hadamard = 64;
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 128;
  QuantSpec adaptive = with_block(nvfp4(), {16, 16});
  adaptive.four_over_six = FourOverSix::kMse;
  QuantSpec adaptive_256 = adaptive;
  adaptive_256.e4m3_max = 256;
  QuantSpec rows = default_spec(QuantFormat::kFp8E4m3);
  rows.amax = AmaxScope::kRow;
  const std::pair<QuantSpec, QuantSpec> pairs[] = {
      {nvfp4(), turned},
      {gradient, gradient},
      {nvfp4(), long_turn},
      {nvfp4(), ms_eden},
      {adaptive, adaptive_256},
      {adaptive, nvfp4()},
      {default_spec(QuantFormat::kFp8E4m3), default_spec(QuantFormat::kFp8E5m2)},
      {default_spec(QuantFormat::kFp8E4m3), turned},
      {rows, default_spec(QuantFormat::kMxfp8E4m3)},
      {with_block(default_spec(QuantFormat::kFp8E4m3), {128, 128}),
       with_block(default_spec(QuantFormat::kFp8E4m3), {1, 128})}};
  uint64_t seed = 300;
  for (const auto& [row, column] : pairs) {
    for (const Data data : kAllData) {
      for (const bool counted : {false, true}) {
        QuantInput in(data, whole_shape({row, column}, 150, 130),
                      seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
        expect_same(row, column, Sides::kBoth, in, counted, 0);
        ++seed;
      }
    }
    if (HasFailure()) return;
  }
}

// An amax that is known already: of the source, which gives the same bits, and another one (a
// larger one where it counts: no element may lie above), so that it shows who reads it. The CPU's
// quantizers and the GPU's passes.
TEST(QuantizePasses, KnownAmax) {
  QuantSpec rows = default_spec(QuantFormat::kFp8E4m3);
  rows.amax = AmaxScope::kRow;
  uint64_t seed = 800;
  for (const QuantSpec& spec :
       {default_spec(QuantFormat::kFp8E4m3), default_spec(QuantFormat::kFp8E5m2), rows, nvfp4()}) {
    for (const Data data : kAllData) {
      QuantInput in(data, {48, 80}, seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
      uint32_t largest = 0;
      for (const float x : in.x) largest = std::max(largest, precision::bits(x) & 0x7FFFFFFFu);
      Guarded known(Dtype::kI32, 1, 1);
      const auto made = [&](uint32_t amax) {
        known.set(0, 0, amax);
        in.call.amax = known;
        expect_same(spec, spec, Sides::kBoth, in, seed % 4 == 0, 0);
        QuantSide row = in.side(spec, Orientation::kRowwise);
        Quantizer()(row.q, {}, in);
        in.call.amax = {};
        return row.bits();
      };
      QuantSide plain = in.side(spec, Orientation::kRowwise);
      Quantizer()(plain.q, {}, in);
      EXPECT_EQ(plain.bits(), made(largest)) << describe(spec) << " on " << in.what;
      if (!takes_known_amax(spec)) {
        EXPECT_EQ(plain.bits(), made(largest ^ 0x01000000u)) << describe(spec) << " on " << in.what;
      } else if (data == Data::kNarrow) {
        EXPECT_NE(plain.bits(), made(largest + 0x01000000u)) << describe(spec) << " on " << in.what;
      }
      ++seed;
      if (HasFailure()) return;
    }
  }
}

// What is left to a GPU then: the factors, and one read for both operands.
TEST(QuantizePasses, AKnownAmaxTakesNoPassOfItsOwn) {
  const QuantSpec spec = default_spec(QuantFormat::kFp8E4m3);
  QuantInput in(Data::kNarrow, {48, 80}, Dtype::kBf16, 830);
  const auto launches = [&] {
    QuantSide row = in.side(spec, Orientation::kRowwise);
    QuantSide column = in.side(spec, Orientation::kColumnwise);
    const HostQuantizeLaunch launch;
    ops::device::quantize_with(launch, row.q, column.q, in.tensor, in.call);
    return launch.launches();
  };
  const int searching = launches();
  Guarded known(Dtype::kI32, 1, 1);
  known.set(0, 0, precision::bits(3.0f));
  in.call.amax = known;
  EXPECT_EQ(2, launches());
  EXPECT_EQ(2 + 2, searching);
}

// The amax of a part is that of no tensor.
TEST(QuantizePasses, AKnownAmaxIsThatOfAWholeTensor) {
  const QuantSpec spec = default_spec(QuantFormat::kFp8E4m3);
  QuantInput in(Data::kNarrow, {16, 16}, Dtype::kBf16, 831);
  Guarded known(Dtype::kI32, 1, 1);
  known.set(0, 0, precision::bits(3.0f));
  struct Nobody final : ops::AmaxJoin {
    void max(const Tensor&) override {}
  } nobody;
  in.call.amax = known;
  in.call.join = &nobody;
  const QuantSide row = in.side(spec, Orientation::kRowwise);
  EXPECT_THROW(Quantizer()(row.q, {}, in), ops::Error);
}

// The GPU's own stochastic rounding, as the host has a model of it: all of the rest is the same.
TEST(QuantizePasses, HardwareRounder) {
  uint64_t seed = 700;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.rounding != Rounding::kStochastic || spec.e4m3_max == 256) continue;
    const Data data = kAllData[seed % std::size(kAllData)];
    const bool ragged = spec.hadamard == 0 && seed % 2 == 0;
    QuantInput in(data, ragged ? Shape{37, 53} : whole_shape({spec}, 40, 72),
                  seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
    in.call.random.rounder = precision::StochasticRounder::kHardware;
    QuantSide row = in.side(spec, Orientation::kRowwise);
    QuantSide column = in.side(spec, Orientation::kColumnwise);
    ops::device::quantize_with(HostQuantizeLaunch(), row.q, column.q, in.tensor, in.call);
    for (const QuantSide* const side : {&row, &column}) {
      expect_reference(in.expected(spec, side->q.orientation), *side,
                       fmt::format("{} on {}", describe(spec), in.what));
    }
    ++seed;
    if (HasFailure()) return;
  }
}

// It is not the CPU's.
TEST(QuantizePasses, TheCpuHasNoHardwareRounder) {
  QuantSpec spec = nvfp4();
  spec.rounding = Rounding::kStochastic;
  QuantInput in(Data::kNarrow, {16, 16}, Dtype::kBf16, 1);
  in.call.random.rounder = precision::StochasticRounder::kHardware;
  const QuantSide row = in.side(spec, Orientation::kRowwise);
  EXPECT_THROW(Quantizer()(row.q, {}, in), ops::Error);
}

TEST(QuantizePasses, OfForwardValues) {
  QuantSpec groups = nvfp4();
  groups.amax = AmaxScope::kGroup128;
  QuantSpec row_scales = nvfp4();
  row_scales.amax = AmaxScope::kRow;
  QuantSpec ms_eden = nvfp4();
  ms_eden.rounding = Rounding::kMsEden;
  ms_eden.hadamard = 128;
  QuantSpec mx = default_spec(QuantFormat::kMxfp4);
  mx.rounding = Rounding::kStochastic;
  uint64_t seed = 400;
  for (const QuantSpec& row :
       {nvfp4(), groups, row_scales, default_spec(QuantFormat::kMxfp8E4m3),
        default_spec(QuantFormat::kFp8E4m3), with_block(nvfp4(), {16, 16})}) {
    for (QuantSpec column : {nvfp4(), ms_eden, mx, with_block(nvfp4(), {16, 16})}) {
      column.source = Source::kForward;
      for (const bool counted : {false, true}) {
        QuantInput in(kAllData[seed % std::size(kAllData)], {128, 256},
                      seed % 2 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
        expect_same(row, column, Sides::kBoth, in, counted, seed % 2);
        ++seed;
      }
      if (HasFailure()) return;
    }
  }
}

// Two stretches of a logical tensor: each counts its random bits from its own place, and its blocks
// lie on the logical grid.
TEST(QuantizePasses, PartsOfATensor) {
  uint64_t seed = 500;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.e4m3_max == 256 || spec.hadamard > 32) continue;
    const int64_t u = std::max(unit_k(spec), 16);
    for (const SplitDim split : {SplitDim::kRows, SplitDim::kCols}) {
      const bool rows = split == SplitDim::kRows;
      QuantInput in(Data::kNarrow, {rows ? 2 * u : u, rows ? u : 2 * u},
                    seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
      in.call.place = {
          .split = split, .size = 5 * u, .n_stretches = 2, .stretches = {{{0, u}, {u, 3 * u}}}};
      expect_same(spec, spec, Sides::kBoth, in, false, 0);
    }
    ++seed;
    if (HasFailure()) return;
  }
}

// What a rank asks the others, as the CPU asks it.
class RaisingJoin final : public ops::AmaxJoin {
 public:
  void max(const Tensor& bits) override {
    calls.push_back(bits.size());
    for (int64_t i = 0; i < bits.size(); ++i) {
      auto& value = bits.as<int32_t>()[i];
      value = std::max(value, int32_t{0x40000000} + static_cast<int32_t>(i));
    }
  }
  std::vector<int64_t> calls;
};

TEST(QuantizePasses, JoinsWhatTheCpuJoins) {
  uint64_t seed = 600;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (spec.e4m3_max == 256 || spec.hadamard > 16) continue;
    const int64_t u = std::max(unit_k(spec), 16);
    for (const SplitDim split : {SplitDim::kRows, SplitDim::kCols}) {
      QuantInput in(Data::kNarrow, {u, u}, Dtype::kBf16, seed);
      in.call.place = {.split = split, .size = 2 * u, .n_stretches = 1, .stretches = {{{0, u}}}};
      RaisingJoin cpu, device;
      QuantSide row = in.side(spec, Orientation::kRowwise);
      QuantSide column = in.side(spec, Orientation::kColumnwise);
      QuantSide cpu_row = in.side(spec, Orientation::kRowwise);
      QuantSide cpu_column = in.side(spec, Orientation::kColumnwise);
      in.call.join = &device;
      HostQuantizeLaunch launch;
      ops::device::quantize_with(launch, row.q, column.q, in.tensor, in.call);
      in.call.join = &cpu;
      ops::Workspace workspace;
      ops::cpu::quantize(cpu_row.q, cpu_column.q, in.tensor, in.call, workspace);
      EXPECT_EQ(cpu.calls, device.calls) << describe(spec);
      EXPECT_EQ(cpu_row.bits(), row.bits()) << describe(spec);
      EXPECT_EQ(cpu_column.bits(), column.bits()) << describe(spec);
    }
    ++seed;
    if (HasFailure()) return;
  }
}

// The orientations of a weight share their memory: what is written once must not be read again.
TEST(QuantizePasses, SharedValues) {
  const QuantSpec spec = with_block(nvfp4(), {16, 16});
  const QuantInput in(Data::kWide, {48, 80}, Dtype::kF32, 700);
  QuantSide row = in.side(spec, Orientation::kRowwise);
  QuantSide column = in.side(spec, Orientation::kColumnwise);
  column.q.values = row.q.values;
  HostQuantizeLaunch launch;
  ops::device::quantize_with(launch, row.q, column.q, in.tensor, in.call);
  expect_reference(in.expected(spec, Orientation::kRowwise), row, in.what);
  EXPECT_EQ(bits_of(row.scale), bits_of(column.scale));
}

}  // namespace
}  // namespace qstep::test
