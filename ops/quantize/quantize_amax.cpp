// The first pass of a quantizer: the largest |x| of a tensor, or of each operand row, behind the
// Hadamard transform where there is one.
#include "ops/quantize/quantize_places.h"

namespace qstep::ops::cpu {

namespace {

// f(std::integral_constant, first) for the Hadamard groups of d elements of a unit.
template <int kUnit, class F>
void for_each_hadamard_group(int d, F&& f) {
  precision::dispatch_unit(d, [&](auto size) {
    if constexpr (size <= kUnit) {
      for (int first = 0; first < kUnit; first += size) f(size, first);
    }
  });
}

// amax per lane behind the transform, NaN left out; raw as in quantize_unit.
template <class T>
F32x16 transformed_amax(const Side& side, const T* x, int64_t ld, const Chunk& c, U32x16& raw) {
  F32x16 largest = broadcast(0.0f);
  precision::dispatch_unit(side.plan.unit, [&](auto unit) {
    for_each_place<unit>(side, c, [&](const Place& p) {
      F32x16 v[unit];
      load_units<unit>(v, x, ld, p);
      precision::hadamard_unit<unit>(side.plan, v);
      const auto found = precision::amax_of<unit>(v);
      largest = max(found.amax, largest);
      raw = max_bits(raw, found.raw);
    });
  });
  return largest;
}

// Of columns in groups of sixteen rows, as quantize_wide_columns takes them. Returns how many.
template <class T>
int64_t wide_hadamard_largest(const Side& side, const T* x, int64_t ld, const Chunk& c,
                              U32x16& raw) {
  constexpr int kWidth = kWideColumns;
  const int64_t wide = c.cols / kWidth * kWidth;
  for (int64_t r = c.row; r < c.row + c.rows; r += 16) {
    for (int64_t col = c.col; col < c.col + wide; col += kWidth) {
      for (int half = 0; half < kWidth; half += 32) {
        for_unordered_groups(x + r * ld + col + half, ld, [&](F32x16* v) {
          raw = max_bits(raw, precision::hadamard_largest<16>(v, side.plan.signs));
        });
      }
    }
  }
  return wide;
}

}  // namespace

template <class T>
void chunk_amax(const Side& side, const T* x, int64_t ld, const Chunk& c, ChunkResult& result) {
  const int d = side.spec().hadamard;
  if (d == 0) {
    for (int64_t r = 0; r < c.rows; ++r) {
      const T* const row = x + (c.row + r) * ld + c.col;
      if (c.ahead != 0) prefetch_elements(row + c.ahead, c.cols);
      result.amax = std::max(result.amax, row_amax(row, c.cols, result.raw));
    }
    return;
  }
  // Scaling and rounding keep the order, so they are done once, on the largest.
  U32x16 raw = broadcast_bits(0);
  Chunk narrow = c;
  if (side.orientation == Orientation::kColumnwise && side.plan.unit == 16 && c.rows % 16 == 0) {
    const int64_t wide = wide_hadamard_largest(side, x, ld, c, raw);
    narrow.col += wide;
    narrow.cols -= wide;
  }
  precision::dispatch_unit(side.plan.unit, [&](auto unit) {
    for_each_place<unit>(side, narrow, [&](const Place& p) {
      F32x16 v[unit];
      load_units<unit>(v, x, ld, p);
      for_each_hadamard_group<unit>(d, [&](auto size, int first) {
        raw = max_bits(raw, precision::hadamard_largest<size>(v + first, side.plan.signs));
      });
    });
  });
  const uint32_t found = largest_lane(raw);
  result.raw = std::max(result.raw, found);
  result.amax =
      found <= 0x7F800000u
          ? precision::round_to_bf16(precision::from_bits(found) * precision::hadamard_scale(d))
          : reduce_max(transformed_amax(side, x, ld, c, raw));
}

template <class T>
void lane_amax(const Side& side, const T* x, int64_t ld, int64_t rows, int64_t cols, int64_t first,
               int64_t n, ChunkResult& result) {
  const int d = side.spec().hadamard;
  const bool keep_nan = is_fp8_format(side.spec().format);  // it makes the scale 1
  if (side.orientation == Orientation::kRowwise && d == 0) {
    for (int64_t r = first; r < first + n; ++r) {
      uint32_t raw = 0;
      const float amax = row_amax(x + r * ld, cols, raw);
      side.lane_amax[r] = keep_nan && raw > 0x7F800000u ? precision::from_bits(raw) : amax;
      result.raw = std::max(result.raw, raw);
    }
    return;
  }
  const bool rowwise = side.orientation == Orientation::kRowwise;
  const Chunk c = rowwise ? Chunk{first, 0, n, cols} : Chunk{0, first, rows, n};
  U32x16 raw = broadcast_bits(0);
  F32x16 amax = transformed_amax(side, x, ld, c, raw);
  if (keep_nan) amax = select(is_nan(from_bits(raw)), from_bits(raw), amax);
  alignas(64) float lane[16];
  store(lane, amax);
  std::copy(lane, lane + n, side.lane_amax + first);
  result.raw = std::max(result.raw, largest_lane(raw));
}

template void chunk_amax<float>(const Side&, const float*, int64_t, const Chunk&, ChunkResult&);
template void chunk_amax<Bf16>(const Side&, const Bf16*, int64_t, const Chunk&, ChunkResult&);
template void lane_amax<float>(const Side&, const float*, int64_t, int64_t, int64_t, int64_t,
                               int64_t, ChunkResult&);
template void lane_amax<Bf16>(const Side&, const Bf16*, int64_t, int64_t, int64_t, int64_t, int64_t,
                              ChunkResult&);

}  // namespace qstep::ops::cpu
