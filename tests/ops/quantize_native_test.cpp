// What a GPU's quantizers leave for its matrix units, thread by thread on the host: the codes and
// scales of the CPU's quantizer in the library's layout, which decode to the values bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/ops/quantize_host_launch.h"
#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using ops::EncodedTensor;
using ops::native_form;
using ops::NativeForm;
using ops::ScaleMode;
using precision::AmaxScope;
using precision::ElementFormat;
using precision::QuantFormat;
using precision::Source;

// One orientation with codes, between sentinels.
struct NativeSide {
  NativeSide(const QuantInput& in, const QuantSpec& spec, Orientation orientation, bool with_values)
      : form(native_form(spec)),
        rows(orientation == Orientation::kRowwise ? in.shape.rows : in.shape.cols),
        k(orientation == Orientation::kRowwise ? in.shape.cols : in.shape.rows),
        side(in.side(spec, orientation)),
        codes(Dtype::kU8, rows, code_bytes(form, k)),
        scales(scales_are_bytes(form.scales) ? Dtype::kU8 : Dtype::kF32, 1,
               std::max<int64_t>(1, block_scale_count(form.scales, rows, k))) {
    side.q.codes = codes;
    if (scale_block_k(form.scales) > 0) side.q.block_scales = scales;
    if (with_values) return;
    side.q.values = {};
    if (spec.amax != AmaxScope::kRow) side.q.tile_scales = {};
  }

  uint8_t code(int64_t row, int64_t i) const {
    const auto* const line = codes.tensor().as<uint8_t>() + row * codes.tensor().ld;
    if (form.element != ElementFormat::kE2m1) return line[i];
    return line[i / 2] >> (i % 2 * 4) & 0xF;
  }
  float value(int64_t row, int64_t i) const {
    switch (form.element) {
      case ElementFormat::kE2m1:
        return precision::decode<ElementFormat::kE2m1>(code(row, i));
      case ElementFormat::kE4m3:
        return precision::decode<ElementFormat::kE4m3>(code(row, i));
      case ElementFormat::kE5m2:
        return precision::decode<ElementFormat::kE5m2>(code(row, i));
    }
    return 0;
  }
  int64_t scale_at(int64_t row, int64_t i) const {
    return block_scale_offset(form.scales, row, i / scale_block_k(form.scales), rows, k);
  }
  uint8_t scale_byte(int64_t row, int64_t i) const {
    return scales.tensor().as<uint8_t>()[scale_at(row, i)];
  }
  float scale(int64_t row, int64_t i) const {
    if (form.scales == ScaleMode::kVec16) {
      return precision::decode<ElementFormat::kE4m3>(scale_byte(row, i));
    }
    if (form.scales == ScaleMode::kVec32) {
      return precision::e8m0_value<float>(uint32_t{scale_byte(row, i)});
    }
    return scales.tensor().as<float>()[scale_at(row, i)];
  }

  NativeForm form;
  int64_t rows, k;
  QuantSide side;
  Guarded codes, scales;
};

void expect_same_number(float expected, float found, const std::string& what, int64_t r,
                        int64_t i) {
  if (precision::is_nan(expected) && precision::is_nan(found)) return;
  ASSERT_EQ(precision::bits(expected), precision::bits(found)) << what << " at " << r << ", " << i;
}

// Against the stored form and the decoded values of the CPU.
void expect_native(const NativeSide& found, const EncodedTensor& e, const QuantSide& cpu,
                   const std::string& what) {
  const QuantSpec& spec = cpu.q.spec;
  const bool row_wise = cpu.q.orientation == Orientation::kRowwise;
  const bool blocks = scale_block_k(found.form.scales) > 0;
  std::set<int64_t> used;
  for (int64_t r = 0; r < found.rows; ++r) {
    for (int64_t i = 0; i < padded_k(found.form, found.k); ++i) {
      if (i >= found.k) {
        ASSERT_EQ(0, found.code(r, i)) << what << ": beyond k, " << r << ", " << i;
        continue;
      }
      ASSERT_EQ(e.codes[static_cast<size_t>(r * e.k + i)], found.code(r, i))
          << what << " at " << r << ", " << i;
      float decoded = found.value(r, i);
      if (blocks) {
        used.insert(found.scale_at(r, i));
        const int64_t block =
            r / std::max(1, spec.block.rows) * e.scale_k + i / std::max(1, spec.block.k);
        if (!e.block_scales.empty()) {
          ASSERT_EQ(e.block_scales[static_cast<size_t>(block)], found.scale_byte(r, i))
              << what << " at " << r << ", " << i;
        } else if (!e.tile_scales.empty()) {
          expect_same_number(e.tile_scales[static_cast<size_t>(block)], found.scale(r, i), what, r,
                             i);
        }
        // FP32 factors that are no powers of two multiply partial sums, not values.
        if (e.tile_scales.empty()) decoded *= found.scale(r, i);
      }
      const float value = row_wise ? cpu.value(r, i) : cpu.value(i, r);
      expect_same_number(value, precision::to_float(precision::to_bf16(decoded)), what, r, i);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  if (!blocks) return;
  const std::vector<std::byte> bytes = found.scales.bits();
  const auto width = static_cast<size_t>(size_bytes(found.scales.tensor().dtype));
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (used.contains(static_cast<int64_t>(i / width))) continue;
    ASSERT_EQ(std::byte{0}, bytes[i]) << what << ": scale of no block";
  }
}

void expect_native(const QuantSpec& row_spec, const QuantSpec& column_spec, const QuantInput& in,
                   bool with_values, bool counted, bool backwards) {
  const std::string what = fmt::format("{} / {} on {}{}", describe(row_spec), describe(column_spec),
                                       in.what, with_values ? "" : ", no values");
  NativeSide row(in, row_spec, Orientation::kRowwise, with_values);
  NativeSide column(in, column_spec, Orientation::kColumnwise, with_values);
  ops::QuantStats stats[2];
  ops::QuantCall call = in.call;
  call.row_stats = counted ? stats : nullptr;
  call.column_stats = counted ? stats + 1 : nullptr;
  ops::device::quantize_with(HostQuantizeLaunch(backwards), row.side.q, column.side.q, in.tensor,
                             call);
  for (const NativeSide* const found : {&row, &column}) {
    QuantSide cpu = in.side(found->side.q.spec, found->side.q.orientation);
    const EncodedTensor e = ops::cpu::quantize_encoded(cpu.q, in.tensor, in.call);
    expect_native(*found, e, cpu, what);
    if (testing::Test::HasFatalFailure()) return;
    found->codes.expect_guards_intact(what);
    found->scales.expect_guards_intact(what);
    EXPECT_EQ(bits_of(cpu.scale), bits_of(found->side.scale)) << what;
    if (with_values) {
      EXPECT_EQ(cpu.bits(), found->side.bits()) << what;
    }
  }
}

// Every spec that has a native form, whole and ragged, with the decoded values and without.
TEST(QuantizeNative, EverySpec) {
  uint64_t seed = 1;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (!native_form(spec)) continue;
    const int64_t u = std::max(multiple_of_k(spec), multiple_of_rows(spec));
    for (const Shape s : {Shape{150, 70}, Shape{1, 1}}) {
      const Shape whole{u * (1 + s.rows / u), u * (1 + s.cols / u)};
      const QuantInput in(kAllData[seed % std::size(kAllData)],
                          spec.hadamard == 0 && seed % 2 == 0 ? s : whole,
                          seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed, seed % 4);
      expect_native(spec, spec, in, seed % 5 < 2, seed % 7 == 0, seed % 2 == 0);
      ++seed;
    }
    if (HasFailure()) return;
  }
}

// All data for what recipes ask for, over more than one tile either way.
TEST(QuantizeNative, PairsOfSpecs) {
  QuantSpec turned = nvfp4();
  turned.hadamard = 16;
  QuantSpec gradient = turned;
  gradient.rounding = precision::Rounding::kStochastic;
  QuantSpec adaptive = with_block(nvfp4(), {16, 16});
  adaptive.four_over_six = precision::FourOverSix::kMse;
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  QuantSpec e5m2 = default_spec(QuantFormat::kFp8E5m2), rows = fp8, delayed = fp8;
  rows.amax = AmaxScope::kRow;
  delayed.amax = AmaxScope::kDelayed;
  QuantSpec tiles = with_block(fp8, {1, 128}), squares = with_block(fp8, {128, 128});
  tiles.scale = squares.scale = precision::ScaleRule::kFp32;
  QuantSpec pow2_tiles = tiles;
  pow2_tiles.scale = precision::ScaleRule::kFp32Pow2;
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const std::pair<QuantSpec, QuantSpec> pairs[] = {
      {nvfp4(), turned},    {gradient, gradient},
      {adaptive, adaptive}, {with_block(nvfp4(), {16, 16}), with_block(nvfp4(), {16, 16})},
      {fp8, fp8},           {fp8, e5m2},
      {delayed, delayed},   {rows, rows},
      {tiles, tiles},       {pow2_tiles, tiles},
      {squares, squares},   {mxfp8, mxfp8},
      {mxfp8, turned},      {with_block(mxfp8, {32, 32}), with_block(mxfp8, {32, 32})},
      {fp8, gradient}};
  uint64_t seed = 100;
  for (const auto& [row, column] : pairs) {
    for (const Data data : kAllData) {
      const QuantInput in(data, {160, 272}, seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed,
                          seed % 2 * 8);
      expect_native(row, column, in, seed % 2 == 0, seed % 5 == 0, seed % 3 == 0);
      ++seed;
    }
    if (HasFailure()) return;
  }
}

// Codes that the GPU's own stochastic rounding leaves, as the host has a model of it.
TEST(QuantizeNative, HardwareRounder) {
  uint64_t seed = 200;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (!native_form(spec) || spec.rounding != precision::Rounding::kStochastic) continue;
    const int64_t u = multiple_of_k(spec);
    QuantInput in(kAllData[seed % std::size(kAllData)], {u * (1 + 40 / u), u * (1 + 150 / u)},
                  Dtype::kBf16, seed);
    in.call.random.rounder = precision::StochasticRounder::kHardware;
    NativeSide row(in, spec, Orientation::kRowwise, false);
    NativeSide column(in, spec, Orientation::kColumnwise, false);
    ops::device::quantize_with(HostQuantizeLaunch(), row.side.q, column.side.q, in.tensor, in.call);
    for (const NativeSide* const found : {&row, &column}) {
      const reference::Quantized expected = in.expected(spec, found->side.q.orientation);
      for (int64_t r = 0; r < found->rows; ++r) {
        for (int64_t i = 0; i < found->k; ++i) {
          ASSERT_EQ(expected.codes[expected.index(r, i)], found->code(r, i))
              << describe(spec) << " on " << in.what << " at " << r << ", " << i;
        }
      }
    }
    ++seed;
  }
  EXPECT_GT(seed, uint64_t{200});
}

TEST(QuantizeNative, RaggedSizes) {
  uint64_t seed = 300;
  for (const QuantFormat format :
       {QuantFormat::kNvfp4, QuantFormat::kMxfp4, QuantFormat::kMxfp8E5m2, QuantFormat::kFp8E4m3}) {
    for (const precision::BlockShape block : {precision::BlockShape{1, 0}, {2, 0}, {0, 0}}) {
      QuantSpec spec = default_spec(format);
      const bool fp8 = is_fp8_format(format);
      const int size = format == QuantFormat::kNvfp4 ? 16 : fp8 ? 128 : 32;
      if (block.rows == 0 && !fp8) continue;
      if (block.rows > 0) spec.block = {block.rows == 1 ? 1 : size, size};
      if (!problems(spec).empty()) continue;
      for (const Shape shape : {Shape{131, 259}, Shape{37, 53}, Shape{1, 7}, Shape{19, 1}}) {
        const QuantInput in(kAllData[seed % std::size(kAllData)], shape,
                            seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed, seed % 2);
        expect_native(spec, spec, in, seed % 2 == 0, false, false);
        ++seed;
      }
    }
    if (HasFailure()) return;
  }
}

// A backward operand that is made from what the forward one decodes to.
TEST(QuantizeNative, OfForwardValues) {
  QuantSpec column = nvfp4();
  column.rounding = precision::Rounding::kMsEden;
  column.hadamard = 128;
  column.source = Source::kForward;
  const QuantInput in(Data::kNarrow, {128, 256}, Dtype::kBf16, 400);
  NativeSide row(in, nvfp4(), Orientation::kRowwise, true);
  NativeSide turned(in, column, Orientation::kColumnwise, true);
  ops::device::quantize_with(HostQuantizeLaunch(), row.side.q, turned.side.q, in.tensor, in.call);
  QuantSide cpu_row = in.side(nvfp4(), Orientation::kRowwise);
  QuantSide cpu_column = in.side(column, Orientation::kColumnwise);
  Quantizer()(cpu_row.q, cpu_column.q, in);
  ASSERT_EQ(cpu_column.bits(), turned.side.bits());
  for (int64_t r = 0; r < turned.rows; ++r) {
    for (int64_t i = 0; i < turned.k; ++i) {
      expect_same_number(cpu_column.value(i, r), turned.value(r, i) * turned.scale(r, i), in.what,
                         r, i);
    }
  }
}

}  // namespace
}  // namespace qstep::test
