#include "ops/quantized_tensor.h"

#include "ops/arena.h"

namespace qstep::ops {

using precision::AmaxScope;
using precision::BlockShape;
using precision::Headroom;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

BlockShape scale_tile(const QuantSpec& spec) {
  if (!spec.quantized()) return {0, 0};
  if (spec.amax == AmaxScope::kRow) return {1, 0};
  if (spec.amax == AmaxScope::kGroup128) return {1, 128};
  // A power of two goes into the BF16 values exactly.
  if (is_fp8_format(spec.format) && !spec.block.whole_tensor() && spec.scale == ScaleRule::kFp32) {
    return spec.block;
  }
  return {0, 0};
}

float scale_denominator(const QuantSpec& spec) {
  if (spec.format == QuantFormat::kNvfp4 && spec.rounding != Rounding::kMsEden &&
      has_tensor_scale(spec)) {
    const float full = 6.0f * static_cast<float>(spec.e4m3_max);
    return spec.headroom == Headroom::kSixteenSeventeenths ? full * (16.0f / 17.0f) : full;
  }
  if (spec.format != QuantFormat::kBf16 && !is_fp8_format(spec.format) &&
      spec.headroom == Headroom::kThreeQuarters) {
    return 3.0f;  // scale[0] is 4
  }
  return 1.0f;
}

QuantizedTensor lay_out_quantized(Arena& arena, std::string_view owner, const QuantSpec& spec,
                                  Orientation orientation, int64_t rows, int64_t cols,
                                  Stored stored) {
  QuantizedTensor q{
      .spec = spec, .orientation = orientation, .values = {}, .scale = {}, .tile_scales = {}};
  if (!spec.quantized()) return q;
  const bool rowwise = orientation == Orientation::kRowwise;
  const int64_t n = rowwise ? rows : cols, k = rowwise ? cols : rows;
  q.values = stored.values ? arena.take(owner, Dtype::kBf16, rows, cols)
                           : matrix(nullptr, Dtype::kBf16, rows, cols);
  if (has_tensor_scale(spec)) q.scale = arena.take(owner, Dtype::kF32, 1, 1);
  if (const BlockShape tile = scale_tile(spec); tile.rows > 0) {
    q.tile_scales = arena.take(owner, Dtype::kF32, divide_up(n, tile.rows),
                               tile.k == 0 ? 1 : divide_up(k, tile.k));
  }
  if (!stored.codes) return q;
  const NativeForm form = native_form(spec);
  check(static_cast<bool>(form), "lay_out_quantized: no GPU has codes of this spec");
  q.codes = arena.take(owner, Dtype::kU8, n, code_bytes(form, k));
  if (const int64_t count = block_scale_count(form.scales, n, k); count > 0) {
    const Dtype dtype = scales_are_bytes(form.scales) ? Dtype::kU8 : Dtype::kF32;
    q.block_scales = arena.take(owner, dtype, 1, count);
  }
  return q;
}

QuantizedTensor first_rows(const QuantizedTensor& q, int64_t n) {
  check(q.orientation == Orientation::kRowwise, "first_rows: of a rowwise operand");
  check(!q.codes, "first_rows: the scales of codes lie in an order that depends on all rows");
  QuantizedTensor part = q;
  if (!q.spec.quantized()) return part;
  part.values = q.values.row_range(0, n);
  if (q.tile_scales) {
    part.tile_scales = q.tile_scales.row_range(0, divide_up(n, scale_tile(q.spec).rows));
  }
  return part;
}

Operand operand(const QuantizedTensor& q) {
  Operand a = q.orientation == Orientation::kRowwise ? rowwise(q.values) : columnwise(q.values);
  a.format = q.spec.format;
  if (q.scale) {
    a.scale = q.scale.as<float>();
    a.scale_denominator = scale_denominator(q.spec);
  }
  if (q.tile_scales) {
    const BlockShape tile = scale_tile(q.spec);
    a.tile_scales = q.tile_scales.as<float>();
    a.tile_rows = tile.rows;
    a.tile_k = tile.k == 0 ? a.k : tile.k;
  }
  if (q.codes) {
    a.form = native_form(q.spec);
    a.codes = q.codes.as<uint8_t>();
    a.block_scales = a.form.scales == ScaleMode::kRow ? q.tile_scales.data : q.block_scales.data;
  }
  return a;
}

}  // namespace qstep::ops
