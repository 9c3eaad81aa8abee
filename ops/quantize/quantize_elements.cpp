#include "ops/quantize/quantize_elements.h"

#include "ops/quantize/quantize_counts.h"
#include "ops/quantize/quantize_places.h"
#include "ops/quantize/unit_plan.h"

namespace qstep::ops::cpu {

using precision::AmaxScope;
using precision::ElementFormat;
using precision::QuantFormat;
using precision::QuantSpec;
using precision::ScaleRule;

namespace {

// FP8 with a scale for the tensor, or for each operand row.
template <ElementFormat kFormat, precision::Range kRange, class T>
void quantize_as(const Side& side, const T* x, int64_t ld, const Chunk& c, ChunkResult& result) {
  const QuantSpec& spec = side.spec();
  const bool rowwise = side.orientation == Orientation::kRowwise;
  const bool lane_scope = spec.amax == AmaxScope::kRow;
  const bool pow2 = spec.scale == ScaleRule::kFp32Pow2;
  const bool records = spec.amax == AmaxScope::kDelayed;
  const float fp8_max = precision::traits(kFormat).max;
  const F32x16 inverse = broadcast(1.0f / side.scale);
  ElementCounts counts(saturation_limit(kFormat));
  Bf16* const values = side.q->values.as<Bf16>();
  const int64_t values_ld = side.q->values.ld;
  for (int64_t r = c.row; r < c.row + c.rows; ++r) {
    if (records) {
      result.amax = std::max(result.amax, row_amax(x + r * ld + c.col, c.cols, result.raw));
    }
    for_each_group(c.cols, [&](int64_t i, int64_t lanes) {
      const int64_t col = c.col + i;
      F32x16 scale = broadcast(side.scale);
      if (lane_scope) {
        const F32x16 amax =
            rowwise ? broadcast(side.lane_amax[r]) : load_n(side.lane_amax + col, lanes);
        scale = precision::fp8_scale(amax, fp8_max, precision::kMaxFloat, pow2);
      }
      const F32x16 v = load_n(x + r * ld + col, lanes);
      const F32x16 q = kRange == precision::Range::kTame
                           ? precision::round_nearest_tame<kFormat>(v * scale)
                           : precision::round_nearest<kFormat>(v * scale);
      Bf16* const to = values + r * values_ld + col;
      if (lanes == kLanes) {
        store_exact(to, q);
      } else {
        store_part(to, q, lanes);
      }
      if (side.encoded != nullptr) {
        EncodedTensor& e = *side.encoded;
        alignas(64) float lane[16];
        store(lane, q);
        for (int64_t l = 0; l < lanes; ++l) {
          const int64_t at = side.q->orientation == Orientation::kRowwise ? r * e.k + col + l
                                                                          : (col + l) * e.k + r;
          e.codes[static_cast<size_t>(at)] = precision::encode<kFormat>(lane[l]);
        }
      }
      if (side.wants_stats) {
        counts.source(&v, 1);
        counts.quantized(&v, &q, 1, scale, lane_scope ? broadcast(1.0f) / scale : inverse);
        counts.elements(lanes);
      }
    });
  }
  if (side.wants_stats) counts.add_to(result.stats);
}

template <ElementFormat kFormat, class T>
void dispatch_range(const Side& side, const T* x, int64_t ld, const Chunk& c, ChunkResult& result) {
  if (side.tame) {
    quantize_as<kFormat, precision::Range::kTame>(side, x, ld, c, result);
  } else {
    quantize_as<kFormat, precision::Range::kAny>(side, x, ld, c, result);
  }
}

}  // namespace

template <class T>
void quantize_elements(const Side& side, const T* x, int64_t ld, const Chunk& c,
                       ChunkResult& result) {
  if (side.spec().format == QuantFormat::kFp8E4m3) {
    dispatch_range<ElementFormat::kE4m3>(side, x, ld, c, result);
  } else {
    dispatch_range<ElementFormat::kE5m2>(side, x, ld, c, result);
  }
}

template void quantize_elements<float>(const Side&, const float*, int64_t, const Chunk&,
                                       ChunkResult&);
template void quantize_elements<Bf16>(const Side&, const Bf16*, int64_t, const Chunk&,
                                      ChunkResult&);

}  // namespace qstep::ops::cpu
