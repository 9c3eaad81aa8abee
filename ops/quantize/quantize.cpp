#include "ops/quantize/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>

#include "ops/elementwise.h"
#include "ops/output_amax.h"
#include "ops/parallel_for.h"
#include "ops/quantize/quantize_factors.h"
#include "ops/quantize/quantize_grid.h"
#include "ops/quantize/quantize_unit_counts.h"
#include "ops/quantize/unit_plan.h"

namespace qstep::ops {

using precision::AmaxScope;
using precision::Source;

namespace {

// Elements of the source that stay together, down its rows or along them.
int64_t multiple_along(const QuantizedTensor& q, SplitDim split) {
  const bool k = (q.orientation == Orientation::kRowwise) == (split == SplitDim::kCols);
  return std::max(k ? precision::unit_k(q.spec) : q.spec.block.rows, 1);
}

// Along the cut dimension: `length` of the source, of which `multiple` stay together.
void check_place(const LogicalPlace& place, int64_t length, int64_t multiple) {
  check(place.n_stretches >= 1 && place.n_stretches <= LogicalPlace::kMaxStretches,
        "quantize: a place has 1 to 3 stretches");
  check_equal(0, place.stretches[0].first, "quantize: begin of the first stretch");
  for (int i = 0; i < place.n_stretches; ++i) {
    const LogicalPlace::Stretch& s = place.stretches[static_cast<size_t>(i)];
    const bool last = i + 1 == place.n_stretches;
    const LogicalPlace::Stretch next = last ? LogicalPlace::Stretch{length, place.size}
                                            : place.stretches[static_cast<size_t>(i + 1)];
    const int64_t end = s.logical + next.first - s.first;
    check(s.first < next.first && s.logical >= 0,
          "quantize: a stretch is empty or lies before the logical tensor");
    check(end <= next.logical, "quantize: stretches overlap or leave the logical tensor");
    if (s.first % multiple != 0 || s.logical % multiple != 0 ||
        (end % multiple != 0 && end != place.size)) {
      check(false, fmt::format("quantize: [{}, {}) of {} cuts a block or Hadamard group of {}",
                               s.logical, end, place.size, multiple));
    }
  }
}

// Codes and what goes with them, in the sizes and the alignment that a library demands.
void check_codes(const QuantizedTensor& q, const Tensor& x) {
  if (!q.codes) return;
  const NativeForm form = native_form(q.spec);
  const bool row = q.orientation == Orientation::kRowwise;
  const int64_t rows = row ? x.rows : x.cols, k = row ? x.cols : x.rows;
  const auto aligned = [](const Tensor& t) {
    return t.contiguous() && reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
  };
  check(static_cast<bool>(form), "quantize: no GPU has codes of this spec");
  expect_shape(q.codes, rows, code_bytes(form, k), "quantize: codes");
  expect_dtype(q.codes, Dtype::kU8, "quantize: codes");
  check(aligned(q.codes), "quantize: codes begin at a multiple of 16 bytes, without gaps");
  const int64_t scales = block_scale_count(form.scales, rows, k);
  check((scales > 0) == static_cast<bool>(q.block_scales), "quantize: block scales");
  if (scales == 0) return;
  expect_vector(q.block_scales, scales, "quantize: block scales");
  expect_dtype(q.block_scales, scales_are_bytes(form.scales) ? Dtype::kU8 : Dtype::kF32,
               "quantize: block scales");
  check(aligned(q.block_scales), "quantize: block scales begin at a multiple of 16 bytes");
}

}  // namespace

void check_quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
                    const Tensor& x, const QuantCall& call) {
  check(x.dtype == Dtype::kF32 || x.dtype == Dtype::kBf16, "quantize: x is fp32 or bf16");
  check_output_amax(call.amax, "quantize: amax");
  check(!call.amax || call.join == nullptr, "quantize: the amax of a part of a tensor");
  for (const QuantizedTensor* q : {&rowwise, &columnwise}) {
    if (!*q) continue;
    check(q->spec.quantized(), "quantize: the spec is bf16");
    if (q->values || !q->codes) {
      expect_shape(q->values, x.rows, x.cols, "quantize: values");
      expect_dtype(q->values, Dtype::kBf16, "quantize: values");
    }
    check_codes(*q, x);
    check(has_tensor_scale(q->spec) == static_cast<bool>(q->scale), "quantize: scale");
    const bool reads_values = q->values || !q->codes || q->spec.amax == AmaxScope::kRow;
    const bool has_tiles = scale_tile(q->spec).rows > 0;
    check(q->tile_scales ? has_tiles : !has_tiles || !reads_values, "quantize: tile scales");
    if (q->spec.amax == AmaxScope::kDelayed) {
      expect_vector(call.delayed_scale, 1, "quantize: delayed scale");
    }
    if (const SplitDim split = call.place.split; split != SplitDim::kNone) {
      check_place(call.place, split == SplitDim::kRows ? x.rows : x.cols,
                  multiple_along(*q, split));
    }
  }
  if (rowwise) check(rowwise.orientation == Orientation::kRowwise, "quantize: rowwise");
  if (columnwise) {
    check(columnwise.orientation == Orientation::kColumnwise, "quantize: columnwise");
    check(columnwise.spec.source == Source::kHighPrecision || rowwise,
          "quantize: no forward values to take");
  }
}

namespace cpu {

namespace {

// The factors that follow from the tensor's amax, and the scale that is stored.
void set_tensor_factors(Side& side, float amax, const QuantCall& call) {
  if (!side.q->scale) return;
  const bool delayed = side.spec().amax == AmaxScope::kDelayed;
  const TensorFactors factors =
      tensor_factors(side.plan, amax, delayed ? *call.delayed_scale.as<float>() : 1.0f);
  side.outer_amax = factors.outer_amax;
  side.outer = factors.outer;
  side.scale = factors.scale;
  *side.q->scale.as<float>() = factors.stored;
}

// The factor of each operand row, from lane_amax.
void store_row_factors(const Side& side, int64_t n) {
  float* const scales = side.q->tile_scales.as<float>();
  for (int64_t i = 0; i < n; ++i) {
    scales[i * side.q->tile_scales.ld] = row_factor(side.plan, side.lane_amax[i]);
  }
}

int64_t operand_rows(const QuantizedTensor& q) {
  return q.orientation == Orientation::kRowwise ? q.values.rows : q.values.cols;
}

// The operand's rows go on in other parts of the logical tensor.
bool cut_along_k(const QuantizedTensor& q, SplitDim split) {
  return split == (q.orientation == Orientation::kRowwise ? SplitDim::kCols : SplitDim::kRows);
}

// Both passes over x for the given sides.
template <class T>
void run(std::span<Side> sides, const Tensor& tensor, const QuantCall& call, Workspace& workspace) {
  const T* const x = tensor.as<T>();
  const int64_t rows = tensor.rows, cols = tensor.cols, ld = tensor.ld;
  const ChunkGrid grid(sides, rows, cols, call.place);
  const int64_t n_chunks = grid.size();
  const auto n_sides = static_cast<int64_t>(sides.size());
  const auto has_row_amaxes = [](const Side& s) { return s.spec().amax == AmaxScope::kRow; };
  const auto known = [&](const Side& s) { return call.amax && takes_known_amax(s.spec()); };

  // Scratch: a result per side and chunk, then an amax per side and per operand row.
  int64_t n_amaxes = n_sides;
  for (const Side& s : sides) n_amaxes += has_row_amaxes(s) ? operand_rows(*s.q) : 0;
  const int64_t result_bytes = n_sides * n_chunks * static_cast<int64_t>(sizeof(ChunkResult));
  char* const scratch =
      workspace.take<char>(result_bytes + n_amaxes * static_cast<int64_t>(sizeof(float)));
  auto* const results = reinterpret_cast<ChunkResult*>(scratch);
  auto* const amaxes = reinterpret_cast<float*>(scratch + result_bytes);
  const auto reset = [&] { std::uninitialized_fill_n(results, n_sides * n_chunks, ChunkResult{}); };
  const auto result_of = [&](int64_t side, int64_t chunk) -> ChunkResult& {
    return results[side * n_chunks + chunk];
  };
  // Over the chunks of a side: amax, and the largest bits of |v|.
  const auto found_by_side = [&](int64_t s) {
    ChunkResult found;
    for (int64_t i = 0; i < n_chunks; ++i) {
      found.amax = std::max(found.amax, result_of(s, i).amax);
      found.raw = std::max(found.raw, result_of(s, i).raw);
    }
    return found;
  };
  uint32_t raw = 0;  // of all sides

  // Pass 1, where a factor of the tensor or of a row comes first.
  reset();
  bool any = false;
  for (const Side& s : sides) any = any || (s.needs_amax() && !known(s));
  if (any) {
    parallel_for(n_chunks, [&](int64_t i) {
      Chunk chunk = grid.with_next(i, ld);
      for (int64_t s = 0; s < n_sides; ++s) {
        const Side& side = sides[static_cast<size_t>(s)];
        if (!side.needs_amax() || known(side)) continue;
        chunk_amax(side, x, ld, chunk, result_of(s, i));
        chunk.ahead = 0;
      }
    });
  }
  // In front what the ranks bring together, at the end the amaxes of rows that are whole here.
  float* joined_end = amaxes + n_sides;
  float* own_rows = amaxes + n_amaxes;
  for (int64_t s = 0; s < n_sides; ++s) {
    Side& side = sides[static_cast<size_t>(s)];
    ChunkResult found = found_by_side(s);
    if (known(side)) found.raw = *amax_bits(call.amax);
    // A NaN makes the scale of fp8 1, and is left out elsewhere (numerics 5).
    amaxes[s] = side.elementwise ? precision::from_bits(found.raw) : found.amax;
    raw = std::max(raw, found.raw);
    if (!has_row_amaxes(side)) continue;
    const int64_t n = operand_rows(*side.q);
    if (cut_along_k(*side.q, call.place.split)) {
      side.lane_amax = joined_end;
      joined_end += n;
    } else {
      own_rows -= n;
      side.lane_amax = own_rows;
    }
    parallel_for((n + 15) / 16, [&](int64_t i) {
      ChunkResult lanes_found;
      lane_amax(side, x, ld, rows, cols, 16 * i, std::min<int64_t>(16, n - 16 * i), lanes_found);
    });
    // FP8 keeps what is not finite in these amaxes; nvfp4 meets it again in pass 2.
    for (int64_t i = 0; i < n; ++i) raw = std::max(raw, precision::bits(side.lane_amax[i]));
  }
  const bool any_amax =
      std::any_of(sides.begin(), sides.end(), [](const Side& s) { return s.needs_amax(); });
  if (call.join != nullptr && (any_amax || joined_end > amaxes + n_sides)) {
    call.join->max(matrix(amaxes, Dtype::kI32, 1, joined_end - amaxes));
  }
  for (int64_t s = 0; s < n_sides; ++s) {
    Side& side = sides[static_cast<size_t>(s)];
    set_tensor_factors(side, amaxes[s], call);
    side.tame = side.needs_amax() && precision::bits(amaxes[s]) < 0x7F800000u;
    if (has_row_amaxes(side)) store_row_factors(side, operand_rows(*side.q));
  }

  // Pass 2.
  reset();
  parallel_for(n_chunks, [&](int64_t i) {
    Chunk chunk = grid.with_next(i, ld);
    for (int64_t s = 0; s < n_sides; ++s) {
      quantize_chunk(sides[static_cast<size_t>(s)], x, ld, chunk, result_of(s, i));
      chunk.ahead = 0;
    }
  });
  for (int64_t s = 0; s < n_sides; ++s) {
    const Side& side = sides[static_cast<size_t>(s)];
    const ChunkResult found = found_by_side(s);
    raw = std::max(raw, found.raw);
    if (side.spec().amax == AmaxScope::kDelayed && call.delayed_amax) {
      float& recorded = *call.delayed_amax.as<float>();
      recorded = std::max(recorded, found.amax);
    }
    QuantStats* const stats =
        side.q->orientation == Orientation::kRowwise ? call.row_stats : call.column_stats;
    if (stats != nullptr) {
      for (int64_t i = 0; i < n_chunks; ++i) add(*stats, result_of(s, i).stats);
      stats->scale = tensor_factor(side);
    }
  }
  if (call.non_finite && raw >= 0x7F800000u) *call.non_finite.as<int32_t>() = 1;
}

void run_sides(std::span<Side> sides, const Tensor& x, const QuantCall& call,
               Workspace& workspace) {
  dispatch_float(x.dtype, [&](auto tag) { run<decltype(tag)>(sides, x, call, workspace); });
}

// What the rowwise operand stands for, in BF16: decoded values times their factors.
void forward_values(const Tensor& to, const QuantizedTensor& rowwise) {
  const precision::BlockShape tile = scale_tile(rowwise.spec);
  const int64_t tile_rows = std::max(tile.rows, 1);
  const int64_t tile_k = tile.k == 0 ? std::max<int64_t>(to.cols, 1) : tile.k;
  const float factor =
      rowwise.scale ? *rowwise.scale.as<float>() * (1.0f / scale_denominator(rowwise.spec)) : 1.0f;
  parallel_for(to.rows, [&](int64_t r) {
    const Bf16* const from = rowwise.values.as<Bf16>() + r * rowwise.values.ld;
    Bf16* const out = to.as<Bf16>() + r * to.ld;
    const float* const scales = rowwise.tile_scales ? rowwise.tile_scales.as<float>() +
                                                          r / tile_rows * rowwise.tile_scales.ld
                                                    : nullptr;
    for (int64_t c = 0; c < to.cols; c += tile_k) {
      const F32x16 scale = broadcast(scales == nullptr ? factor : scales[c / tile_k]);
      for_each_group(std::min(tile_k, to.cols - c), [&](int64_t i, int64_t lanes) {
        store_n(out + c + i, load_n(from + c + i, lanes) * scale, lanes);
      });
    }
  });
}

}  // namespace

void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
              const QuantCall& call, Workspace& workspace) {
  check_quantize(rowwise, columnwise, x, call);
  check(!rowwise.codes && !columnwise.codes, "quantize: a CPU writes values alone");
  check(call.random.rounder == precision::StochasticRounder::kPortable,
        "quantize: a CPU has no stochastic rounding of its own");
  const Dtype source = x.dtype;
  const bool row_stats = call.row_stats != nullptr, column_stats = call.column_stats != nullptr;
  if (rowwise && columnwise && precision::transposable(rowwise.spec, columnwise.spec)) {
    // One set of codes, so one set of counts.
    QuantStats both;
    QuantCall counted = call;
    if (row_stats || column_stats) counted.row_stats = &both;
    Side side = make_side(rowwise, source, counted, row_stats || column_stats, nullptr);
    run_sides({&side, 1}, x, counted, workspace);
    if (row_stats) *call.row_stats = both;
    if (column_stats) *call.column_stats = both;
    if (columnwise.values.data != rowwise.values.data) cast(columnwise.values, rowwise.values);
    if (columnwise.scale) *columnwise.scale.as<float>() = *rowwise.scale.as<float>();
    for (int64_t r = 0; r < rowwise.tile_scales.rows; ++r) {
      for (int64_t c = 0; c < rowwise.tile_scales.cols; ++c) {
        columnwise.tile_scales.as<float>()[c * columnwise.tile_scales.ld + r] =
            rowwise.tile_scales.as<float>()[r * rowwise.tile_scales.ld + c];
      }
    }
    return;
  }
  if (rowwise && columnwise && columnwise.spec.source == Source::kForward) {
    Side row = make_side(rowwise, source, call, row_stats, nullptr);
    run_sides({&row, 1}, x, call, workspace);
    // A factor of the whole tensor passes into that of the columnwise operand, so that the decoded
    // values are the source, exactly; other factors are multiplied in.
    const bool factor_passes = rowwise.scale && columnwise.scale;
    Tensor forward = rowwise.values;
    if (!factor_passes && (rowwise.scale || rowwise.tile_scales)) {
      forward = columnwise.values;
      forward_values(forward, rowwise);
    }
    Side column = make_side(columnwise, Dtype::kBf16, call, column_stats, nullptr);
    run_sides({&column, 1}, forward, call, workspace);
    if (factor_passes) {
      const float factor = *rowwise.scale.as<float>() / scale_denominator(rowwise.spec);
      *columnwise.scale.as<float>() *= factor;
      if (column_stats) scale_stats(*call.column_stats, factor);
    }
    return;
  }
  std::array<Side, 2> sides;
  size_t n = 0;
  if (rowwise) sides[n++] = make_side(rowwise, source, call, row_stats, nullptr);
  if (columnwise) sides[n++] = make_side(columnwise, source, call, column_stats, nullptr);
  if (n > 0) run_sides(std::span(sides).first(n), x, call, workspace);
}

EncodedTensor quantize_encoded(const QuantizedTensor& q, const Tensor& x, const QuantCall& call) {
  check(static_cast<bool>(q), "quantize_encoded: nowhere to put the values");
  const bool rowwise = q.orientation == Orientation::kRowwise;
  check_quantize(rowwise ? q : QuantizedTensor{}, rowwise ? QuantizedTensor{} : q, x, call);
  const QuantSpec& spec = q.spec;
  EncodedTensor e;
  // In the direction of the work; square blocks are turned at the end.
  const bool as_rows = rowwise || spec.block.square();
  e.rows = as_rows ? x.rows : x.cols;
  e.k = as_rows ? x.cols : x.rows;
  const bool turned = as_rows && !rowwise;
  if (!spec.block.whole_tensor()) {
    e.scale_rows = (e.rows + spec.block.rows - 1) / spec.block.rows;
    e.scale_k = (e.k + spec.block.k - 1) / spec.block.k;
  }
  const bool bytes = !is_fp8_format(spec.format);
  if (bytes) e.block_scales.resize(static_cast<size_t>(e.scale_rows * e.scale_k));
  e.codes.resize(static_cast<size_t>(x.size()));
  if (spec.block.whole_tensor()) {  // codes are placed by orientation
    e.rows = rowwise ? x.rows : x.cols;
    e.k = rowwise ? x.cols : x.rows;
  }
  Workspace workspace;
  const bool stats = rowwise ? call.row_stats != nullptr : call.column_stats != nullptr;
  Side side = make_side(q, x.dtype, call, stats, &e);
  run_sides({&side, 1}, x, call, workspace);
  if (turned) e = transposed(e);
  if (q.scale) e.scale = *q.scale.as<float>();
  if (q.tile_scales) {
    const Tensor& t = q.tile_scales;
    e.tile_scales.assign(t.as<float>(), t.as<float>() + t.size());
  }
  return e;
}

}  // namespace cpu
}  // namespace qstep::ops
