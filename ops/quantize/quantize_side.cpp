#include "ops/quantize/quantize_side.h"

#include <optional>
#include <type_traits>

#include "ops/quantize/quantize_counts.h"
#include "ops/quantize/quantize_elements.h"
#include "ops/quantize/quantize_places.h"
#include "ops/quantize/quantize_rows.h"
#include "ops/quantize/unit_plan.h"

namespace qstep::ops::cpu {

using precision::AmaxScope;
using precision::ElementFormat;
using precision::Nvfp4Factors;
using precision::QuantFormat;
using precision::Rounding;
using precision::ScaleRule;
using precision::UnitContext;
using precision::UnitPlan;
using precision::UnitScales;

namespace {

constexpr int kBlocksAtOnce = 64;  // elements
constexpr int64_t kStreamBytes = int64_t{32} << 20;

// Chunks of aligned rows begin where cache lines do.
bool whole_lines(const LogicalPlace& place) {
  if (place.split != SplitDim::kCols) return true;
  return std::all_of(place.stretches.begin(), place.stretches.begin() + place.n_stretches,
                     [](const LogicalPlace::Stretch& s) { return s.first % 32 == 0; });
}

}  // namespace

bool Side::needs_amax() const {
  if (spec().amax == AmaxScope::kRow) return false;  // lane_amax
  return has_tensor_scale(spec()) && spec().amax == AmaxScope::kTensor &&
         (spec().format == QuantFormat::kNvfp4 || is_fp8_format(spec().format));
}

float tensor_factor(const Side& side) {
  return side.q->scale ? *side.q->scale.as<float>() / scale_denominator(side.spec()) : 1.0f;
}

Side make_side(const QuantizedTensor& q, Dtype source, const QuantCall& call, bool stats,
               EncodedTensor* encoded) {
  const QuantSpec& spec = q.spec;
  Side side;
  side.q = &q;
  side.orientation = spec.block.square() ? Orientation::kRowwise : q.orientation;
  side.elementwise = is_fp8_format(spec.format) && spec.block.whole_tensor();
  const bool power_of_two = is_mx_format(spec.format) ||
                            (is_fp8_format(spec.format) && spec.scale == ScaleRule::kFp32Pow2);
  side.exact = !power_of_two;
  // What no cache will hold until a GEMM reads it goes past them: no line is read to be
  // overwritten.
  const Tensor& values = q.values;
  side.streams = values.bytes() > kStreamBytes && values.ld % 32 == 0 &&
                 reinterpret_cast<uintptr_t>(values.data) % 64 == 0 && whole_lines(call.place);
  side.wants_stats = stats;
  side.encoded = encoded;
  side.micro_batch = call.random.micro_batch;
  side.rows = call.place.logical_rows(values.rows);
  side.cols = call.place.logical_cols(values.cols);

  const bool row = q.orientation == Orientation::kRowwise;
  UnitPlan& plan = side.plan;
  plan = unit_plan(spec, q.orientation, source, call.random);
  // Several blocks at a time where they are independent: they wait for their divisions together,
  // and rows are read in whole cache lines. (Columns: quantize_wide_columns.)
  const bool grouped = spec.amax == AmaxScope::kGroup128 || spec.rounding == Rounding::kMsEden;
  if (spec.format == QuantFormat::kNvfp4 && row && !grouped && !spec.block.square()) {
    plan.unit = std::max(kBlocksAtOnce, plan.unit);
  }
  return side;
}

namespace {

void store_tile_scale(const Side& side, const Place& p, F32x16 outer) {
  const QuantizedTensor& q = *side.q;
  const precision::BlockShape tile = scale_tile(side.spec());
  float* const scales = q.tile_scales.as<float>();
  const int64_t ld = q.tile_scales.ld;
  alignas(64) float lane[16];
  store(lane, outer);
  if (tile.rows > 1) {  // square: one scale, worked on along the rows of the source
    const int64_t r = p.row / tile.rows, c = p.col / tile.k;
    scales[q.orientation == Orientation::kRowwise ? r * ld + c : c * ld + r] = lane[0];
    return;
  }
  const bool rowwise = side.orientation == Orientation::kRowwise;
  const int64_t first = rowwise ? p.row : p.col, k = (rowwise ? p.col : p.row) / tile.k;
  for (int i = 0; i < p.lanes; ++i) scales[(first + i) * ld + k] = lane[i];
}

void store_encoded(const Side& side, const Place& p, const F32x16* codes,
                   const UnitScales<F32x16>& scales) {
  EncodedTensor& e = *side.encoded;
  const QuantSpec& spec = side.spec();
  const bool rowwise = side.orientation == Orientation::kRowwise;
  const int64_t first = rowwise ? p.row : p.col, k0 = rowwise ? p.col : p.row;
  const ElementFormat element = element_of(spec.format);
  alignas(64) float lane[16];
  for (int i = 0; i < p.elements; ++i) {
    store(lane, codes[i]);
    for (int l = 0; l < p.lanes; ++l) {
      e.codes[static_cast<size_t>((first + l) * e.k + k0 + i)] = encode_element(element, lane[l]);
    }
  }
  if (e.block_scales.empty()) return;
  for (int b = 0; b * spec.block.k < p.elements; ++b) {
    store(lane, scales.block[b]);
    for (int l = 0; l < p.lanes; ++l) {
      const int64_t r = (first + l) / spec.block.rows, k = k0 / spec.block.k + b;
      e.block_scales[static_cast<size_t>(r * e.scale_k + k)] =
          encode_block_scale(spec.format, lane[l]);
    }
  }
}

// amaxes of the square blocks of a chunk, which holds whole ones. A NaN is left out, or kept.
class SquareAmax {
 public:
  template <class T>
  SquareAmax(int size, bool keep_nan, const T* x, int64_t ld, const Chunk& c, uint32_t& raw)
      : size_(size), across_((c.cols + size - 1) / size), chunk_(c) {
    for (int64_t r = 0; r < c.rows; r += size) {
      for (int64_t k = 0; k < c.cols; k += size) {
        const T* const block = x + (c.row + r) * ld + c.col + k;
        const int64_t n = std::min<int64_t>(size, c.cols - k);
        U32x16 largest = broadcast_bits(0);
        for (int64_t i = 0; i < std::min<int64_t>(size, c.rows - r); ++i) {
          for_each_group(n, [&](int64_t j, int64_t lanes) {
            largest = max_bits(largest, bits(magnitude(load_n(block + i * ld + j, lanes))));
          });
        }
        uint32_t found = largest_lane(largest);
        raw = std::max(raw, found);
        float amax = precision::from_bits(found);
        if (found > 0x7F800000u && !keep_nan) {
          amax = 0;
          for (int64_t i = 0; i < std::min<int64_t>(size, c.rows - r); ++i) {
            amax = std::max(amax, row_amax(block + i * ld, n, found));
          }
        }
        amax_[r / size * across_ + k / size] = amax;
      }
    }
  }
  float at(const Place& p) const {
    return amax_[(p.row - chunk_.row) / size_ * across_ + (p.col - chunk_.col) / size_];
  }

 private:
  int64_t size_, across_;
  Chunk chunk_;
  float amax_[kMaxChunkRows / 16 * (kMaxChunkCols / 16)];
};

Nvfp4Factors<F32x16> broadcast_factors(const Nvfp4Factors<float>& f) {
  return {broadcast(f.s_enc), broadcast(f.s_dec), broadcast(f.block_factor)};
}

template <int kUnit, class T>
void quantize_units(const Side& side, const T* x, int64_t ld, const Chunk& chunk,
                    ChunkResult& result) {
  const UnitPlan& plan = side.plan;
  const QuantSpec& spec = side.spec();
  const bool rowwise = side.orientation == Orientation::kRowwise;
  const auto stride = static_cast<uint64_t>(side.line_length());
  Bf16* const values = side.q->values.as<Bf16>();
  const int64_t values_ld = side.q->values.ld;
  const bool lane_scope = spec.amax == AmaxScope::kRow;
  const bool whole = scale_tile(spec).k == 128;
  ElementCounts counts(saturation_limit(element_of(spec.format)));

  UnitContext<F32x16> context{broadcast(side.outer_amax), broadcast_factors(side.outer),
                              broadcast(0.0f)};
  UnitScales<F32x16> scales;
  uint32_t square_raw = 0;
  std::optional<SquareAmax> square;
  if (spec.block.square())
    square.emplace(spec.block.rows, is_fp8_format(spec.format), x, ld, chunk, square_raw);
  const F32x16 tensor = broadcast(tensor_factor(side));
  const bool watched = side.wants_stats || side.encoded != nullptr;
  F32x16 before[kUnit], codes[kUnit];
  U32x16 raw = broadcast_bits(0);

  for_each_place<kUnit>(side, chunk, [&](const Place& p) {
    F32x16 v[kUnit];
    load_units<kUnit>(v, x, ld, p);
    if (side.wants_stats) counts.source(v, kUnit);
    precision::hadamard_unit<kUnit>(plan, v);
    if (spec.block.square()) {
      context.block_amax = broadcast(square->at(p));
    }
    if (lane_scope) {
      const F32x16 amax = load_part(side.lane_amax + (rowwise ? p.row : p.col), p.lanes);
      context.outer_amax = amax;
      context.outer = precision::nvfp4_factors(amax, plan.range, plan.headroom);
    }
    const UnitRandom random(plan, side.random_index(chunk, p.row, p.col), stride);
    if (watched) {
      std::copy(v, v + kUnit, before);
      F32x16* const wanted = side.encoded == nullptr ? nullptr : codes;
      precision::quantize_unit<kUnit>(plan, v, context, scales, raw, wanted, random);
    } else {
      F32x16* const none = nullptr;
      precision::quantize_unit<kUnit>(plan, v, context, scales, raw, none, random);
    }
    if (whole) store_tile_scale(side, p, scales.outer);
    if (side.encoded != nullptr) store_encoded(side, p, codes, scales);
    if (side.wants_stats) {
      F32x16 factor = tensor;
      if (whole) factor = scales.outer;
      if (lane_scope) factor = context.outer_amax * broadcast(1.0f / plan.range);
      const int block = spec.block.k;
      // All lanes lie in one square block, as those of the rows above may do.
      const int own_blocks = !spec.block.square() ? p.lanes : p.row % spec.block.rows == 0 ? 1 : 0;
      for (int b = 0; b * block < p.elements; ++b) {
        counts.quantized(before + b * block, v + b * block, block, scales.enc[b], factor);
        counts.scales(scales.block[b], own_blocks);
      }
      counts.elements(static_cast<int64_t>(p.lanes) * p.elements);
    }
    if (side.exact && side.streams) {
      store_units<kUnit, true, true>(values, values_ld, v, p);
    } else if (side.exact) {
      store_units<kUnit, true>(values, values_ld, v, p);
    } else {
      store_units<kUnit, false>(values, values_ld, v, p);
    }
  });
  result.raw = std::max({result.raw, largest_lane(raw), square_raw});
  if (side.wants_stats) counts.add_to(result.stats);
}

// Columnwise nvfp4 in single blocks, as training has it, goes through four groups of sixteen
// columns at a time: their rows are whole cache lines, and they wait for their divisions together.
bool takes_wide_columns(const Side& side) {
  return side.spec().format == QuantFormat::kNvfp4 && side.plan.unit == 16 &&
         side.orientation == Orientation::kColumnwise && side.rows % 16 == 0 &&
         side.spec().amax == AmaxScope::kTensor && side.spec().rounding != Rounding::kMsEden &&
         !side.wants_stats && side.encoded == nullptr;
}

// The random words of the groups' blocks, made together.
struct WideRandom {
  precision::RandomWords<F32x16> words[kWideGroups];
  const precision::RandomWords<F32x16>& operator()(int group, uint32_t) const {
    return words[group];
  }
};

// Returns how many columns of the chunk were quantized: whole groups of four.
template <class T>
int64_t quantize_wide_columns(const Side& side, const T* x, int64_t ld, const Chunk& c,
                              ChunkResult& result) {
  constexpr int kWidth = kWideColumns;
  const UnitPlan& plan = side.plan;
  const UnitContext<F32x16> context{broadcast(side.outer_amax), broadcast_factors(side.outer),
                                    broadcast(0.0f)};
  const auto stride = static_cast<uint64_t>(side.line_length());
  const int64_t wide = c.cols / kWidth * kWidth;
  UnitScales<F32x16> scales;
  U32x16 raw = broadcast_bits(0);
  F32x16* const no_codes = nullptr;
  WideRandom random;
  for (int64_t r = c.row; r < c.row + c.rows; r += 16) {
    for (int64_t col = c.col; col < c.col + wide; col += kWidth) {
      F32x16 v[kWidth];
      for (int group = 0; group < kWideGroups; ++group) {
        load_group(v + 16 * group, x + r * ld + col, ld, group);
        precision::hadamard_unit<16>(plan, v + 16 * group);
      }
      if (plan.spec.rounding == Rounding::kStochastic) {
        UnitRandom(plan, side.random_index(c, r, col), stride)
            .of_wide(random.words, plan.element_stream);
      }
      precision::nvfp4_unit<kWidth>(plan, v, context, scales, raw, no_codes, random);
      Bf16* const to = side.q->values.as<Bf16>() + r * side.q->values.ld + col;
      if (side.streams) {
        store_wide<true>(to, side.q->values.ld, v);
      } else {
        store_wide<false>(to, side.q->values.ld, v);
      }
    }
  }
  result.raw = std::max(result.raw, largest_lane(raw));
  return wide;
}

}  // namespace

template <class T>
void quantize_chunk(const Side& side, const T* x, int64_t ld, const Chunk& chunk,
                    ChunkResult& result) {
  // The fast ways first; what they leave, columns at the end of the chunk, goes the general one.
  int64_t done = 0;
  if (takes_wide_columns(side)) {
    done = quantize_wide_columns(side, x, ld, chunk, result);
  } else if constexpr (std::is_same_v<T, Bf16>) {
    done = quantize_rows(side, x, ld, chunk, result);
  }
  Chunk rest = chunk;
  rest.col += done;
  rest.cols -= done;
  rest.ahead = 0;
  if (rest.cols == 0) {
    // done
  } else if (!side.elementwise) {
    precision::dispatch_unit(side.plan.unit,
                             [&](auto unit) { quantize_units<unit>(side, x, ld, rest, result); });
  } else {
    quantize_elements(side, x, ld, rest, result);
  }
  if (side.streams) end_stream();
}

EncodedTensor transposed(const EncodedTensor& e) {
  EncodedTensor t = e;
  t.rows = e.k;
  t.k = e.rows;
  t.scale_rows = e.scale_k;
  t.scale_k = e.scale_rows;
  for (int64_t r = 0; r < e.rows; ++r) {
    for (int64_t k = 0; k < e.k; ++k) {
      t.codes[static_cast<size_t>(k * t.k + r)] = e.codes[static_cast<size_t>(r * e.k + k)];
    }
  }
  for (int64_t r = 0; r < e.scale_rows && !e.block_scales.empty(); ++r) {
    for (int64_t k = 0; k < e.scale_k; ++k) {
      t.block_scales[static_cast<size_t>(k * t.scale_k + r)] =
          e.block_scales[static_cast<size_t>(r * e.scale_k + k)];
    }
  }
  return t;
}

template void quantize_chunk<float>(const Side&, const float*, int64_t, const Chunk&, ChunkResult&);
template void quantize_chunk<Bf16>(const Side&, const Bf16*, int64_t, const Chunk&, ChunkResult&);

}  // namespace qstep::ops::cpu
