// The passes of a quantize call on a GPU, one after another on a stream: zero the amaxes, raise
// them, join those of other ranks, set the factors, quantize, sum up the counts. Each is a function
// object over thread blocks or elements; a Launch runs them:
//
//   T* scratch<T>(n)                     device memory until the next request
//   zero(memory, bytes)
//   blocks(work)                         work(team of Work::kThreads, shared, i), i < work.blocks()
//   each(n, f)                           f(i), i < n
//   download(to, from, bytes)            waits; for statistics alone
//
// so that a test runs the same passes on the host.
#pragma once

#include <array>
#include <span>

#include "ops/output_amax.h"
#include "ops/quantize/quantize.h"
#include "ops/quantize/quantize_amax_tiles.h"
#include "ops/quantize/quantize_element_tiles.h"
#include "ops/quantize/quantize_small_passes.h"
#include "ops/quantize/quantize_tiles.h"

namespace qstep::ops::device {

// One orientation on its way through the passes.
struct PassSide {
  const QuantizedTensor* q = nullptr;
  const QuantizedTensor* twin = nullptr;
  QuantStats* stats = nullptr;
  QuantLines lines;
  bool elementwise = false;                  // fp8 with a scale per tensor or row: no units
  bool per_row = false, per_tensor = false;  // needs amaxes first
  bool known_amax = false;                   // that of the tensor, found by whoever made it
  uint32_t* amax = nullptr;
  TensorFactors* factors = nullptr;
  UnitCounts* counts = nullptr;

  bool cut_along_k(SplitDim split) const {
    return split == (lines.along_rows ? SplitDim::kCols : SplitDim::kRows);
  }
  // Thread blocks of pass 2.
  int64_t blocks() const {
    int64_t n = 0;
    if (elementwise) return n_tiles<kElementTile>(lines.rows, lines.cols);
    dispatch_tile_format(lines.plan, [&](auto format) {
      n = n_tiles<decltype(format)::kTile>(lines.rows, lines.cols);
    });
    return n;
  }
  bool wants(Leaves leaves) const {
    if (leaves == Leaves::kCounts) return stats != nullptr;
    const auto has = [&](const QuantizedTensor* t) {
      return t != nullptr && (leaves == Leaves::kCodes ? t->codes : t->values).data != nullptr;
    };
    return has(q) || has(twin);
  }
};

template <class Launch>
class QuantizePasses {
 public:
  QuantizePasses(const Launch& launch, const Tensor& x, const QuantCall& call,
                 ForwardFactor forward = {})
      : launch_(launch), x_(x), source_(tile_source(x)), call_(call), forward_(forward) {
    if (call.non_finite) non_finite_ = call.non_finite.as<int32_t>();
  }

  // twin: the other orientation where it holds the same codes.
  void add_side(const QuantizedTensor& q, const QuantizedTensor* twin, QuantStats* stats) {
    Side& side = sides_[n_sides_++];
    side.q = &q;
    side.twin = twin;
    side.stats = stats;
    side.lines = quant_lines(q, x_, call_);
    side.elementwise = is_fp8_format(q.spec.format) && q.spec.block.whole_tensor();
    side.per_row = q.spec.amax == precision::AmaxScope::kRow;
    side.per_tensor =
        has_tensor_scale(q.spec) && q.spec.amax == precision::AmaxScope::kTensor &&
        (q.spec.format == precision::QuantFormat::kNvfp4 || is_fp8_format(q.spec.format));
    side.known_amax = call_.amax && takes_known_amax(q.spec);
  }

  void run() {
    take_scratch();
    find_amaxes();
    join();
    set_factors();
    clear_padding();
    quantize();
    sum_counts();
  }

 private:
  using Side = PassSide;
  std::span<Side> sides() { return std::span(sides_).first(n_sides_); }

  // Amaxes: in front what the ranks bring together, at the end those of rows that are whole here.
  void take_scratch() {
    int64_t n_rows = 0, n_counts = 0;
    n_joined_ = static_cast<int64_t>(n_sides_);
    for (const Side& side : sides()) {
      if (side.stats != nullptr) n_counts += side.blocks();
      if (!side.per_row) continue;
      n_rows += side.lines.lines();
      if (side.cut_along_k(call_.place.split)) n_joined_ += side.lines.lines();
    }
    n_amaxes_ = static_cast<int64_t>(n_sides_) + n_rows;
    const auto rounded = [](int64_t bytes) { return (bytes + 15) / 16 * 16; };
    const int64_t amax_bytes = rounded(n_amaxes_ * static_cast<int64_t>(sizeof(uint32_t)));
    const int64_t factor_bytes = rounded(2 * static_cast<int64_t>(sizeof(TensorFactors)));
    const int64_t count_bytes = rounded(n_counts * static_cast<int64_t>(sizeof(UnitCounts)));
    char* at = launch_.template scratch<char>(amax_bytes + factor_bytes + count_bytes +
                                              2 * static_cast<int64_t>(sizeof(QuantStats)));
    amaxes_ = reinterpret_cast<uint32_t*>(at);
    auto* const factors = reinterpret_cast<TensorFactors*>(at += amax_bytes);
    auto* counts = reinterpret_cast<UnitCounts*>(at += factor_bytes);
    stats_ = reinterpret_cast<QuantStats*>(at + count_bytes);

    uint32_t* joined_rows = amaxes_ + n_sides_;
    uint32_t* own_rows = amaxes_ + n_joined_;
    for (size_t s = 0; s < n_sides_; ++s) {
      Side& side = sides_[s];
      side.factors = factors + s;
      if (side.per_tensor) side.amax = side.known_amax ? amax_bits(call_.amax) : amaxes_ + s;
      if (side.per_row) {
        uint32_t*& rows = side.cut_along_k(call_.place.split) ? joined_rows : own_rows;
        side.amax = rows;
        rows += side.lines.lines();
      }
      if (side.stats != nullptr) {
        side.counts = counts;
        counts += side.blocks();
      }
    }
  }

  // Tiles for a Hadamard transform and for rows; what needs neither goes with them where its units
  // are as long, or in a pass that reads x alone.
  void find_amaxes() {
    bool any = false;
    int tile_unit = 0;
    for (const Side& side : sides()) {
      if (side.known_amax) continue;
      any = any || side.amax != nullptr;
      if (side.amax != nullptr && (side.per_row || side.lines.plan.spec.hadamard > 0)) {
        tile_unit = std::max(tile_unit, side.lines.plan.unit);
      }
    }
    if (!any) return;
    launch_.zero(amaxes_, n_amaxes_ * static_cast<int64_t>(sizeof(uint32_t)));
    AmaxElements plain{.source = flattened(source_), .non_finite = non_finite_};
    bool any_plain = false;
    std::array<bool, 2> in_tiles{};
    for (size_t s = 0; s < n_sides_; ++s) {
      const Side& side = sides_[s];
      if (side.amax == nullptr || side.known_amax) continue;
      in_tiles[s] =
          side.per_row || side.lines.plan.spec.hadamard > 0 || side.lines.plan.unit == tile_unit;
      if (in_tiles[s]) continue;
      plain.amax[s] = side.amax;
      plain.keeps_nan[s] = side.lines.keeps_nan();
      any_plain = true;
    }
    if (any_plain) launch_.blocks(plain);
    for_each_group(
        [&](const Side& side) { return in_tiles[index(side)]; },
        [](const Side& a, const Side& b) { return a.lines.plan.unit == b.lines.plan.unit; },
        [&](std::span<Side* const> group) {
          precision::dispatch_unit(group[0]->lines.plan.unit, [&](auto unit) {
            AmaxTiles<unit> work;
            fill(work, group);
            launch_.blocks(work);
          });
        });
  }

  void join() {
    bool any = n_joined_ > static_cast<int64_t>(n_sides_);
    for (const Side& side : sides()) any = any || side.per_tensor;
    if (call_.join == nullptr || !any) return;
    call_.join->max(matrix(amaxes_, Dtype::kI32, 1, n_joined_));
  }

  void set_factors() {
    SetFactors set;
    for (size_t s = 0; s < n_sides_; ++s) {
      const Side& side = sides_[s];
      const bool delayed = side.q->spec.amax == precision::AmaxScope::kDelayed;
      set.sides[s] = {.plan = side.lines.plan,
                      .amax = side.per_tensor ? side.amax : nullptr,
                      .delayed_scale = delayed ? call_.delayed_scale.as<float>() : nullptr,
                      .factors = side.factors};
      if (side.q->scale) set.sides[s].stored[0] = side.q->scale.as<float>();
      if (side.twin != nullptr && side.twin->scale) {
        set.sides[s].stored[1] = side.twin->scale.as<float>();
      }
    }
    launch_.each(static_cast<int64_t>(n_sides_), set);
  }

  // Codes and block scales that end in zeros, where an operand has no length that a library wants:
  // one more write of them.
  void clear_padding() {
    for (const Side& side : sides()) {
      for (const QuantizedTensor* const q : {side.q, side.twin}) {
        if (q == nullptr || !q->codes) continue;
        const bool row = q->orientation == Orientation::kRowwise;
        const int64_t n = row ? x_.rows : x_.cols, k = row ? x_.cols : x_.rows;
        const NativeForm form = native_form(q->spec);
        if (padded_k(form, k) != k) launch_.zero(q->codes.data, q->codes.bytes());
        if (q->block_scales && block_scales_are_padded(form.scales, n, k)) {
          launch_.zero(q->block_scales.data, q->block_scales.bytes());
        }
      }
    }
  }

  void quantize() {
    // Values last: they may take the place of the source (quantize_forward).
    leave<Leaves::kCounts>();
    leave<Leaves::kCodes>();
    leave<Leaves::kValues>();
  }
  template <Leaves kLeaves>
  void leave() {
    using precision::ElementFormat;
    for (const Side& side : sides()) {
      if (!side.elementwise || !side.wants(kLeaves)) continue;
      if (element_of(side.q->spec.format) == ElementFormat::kE4m3) {
        launch_.blocks(elements<QuantizeElements<ElementFormat::kE4m3, kLeaves>>(side));
      } else {
        launch_.blocks(elements<QuantizeElements<ElementFormat::kE5m2, kLeaves>>(side));
      }
    }
    for_each_group([](const Side& side) { return !side.elementwise && side.wants(kLeaves); },
                   [](const Side& a, const Side& b) {
                     const precision::UnitPlan &p = a.lines.plan, &q = b.lines.plan;
                     return p.unit == q.unit && p.spec.format == q.spec.format &&
                            is_plain(p.spec) == is_plain(q.spec) &&
                            (p.spec.hadamard == 0) == (q.spec.hadamard == 0);
                   },
                   [&](std::span<Side* const> group) {
                     dispatch_tile_format(group[0]->lines.plan, [&](auto format) {
                       QuantizeTiles<decltype(format), kLeaves> work;
                       fill(work, group);
                       launch_.blocks(work);
                     });
                   });
  }

  void sum_counts() {
    for (size_t s = 0; s < n_sides_; ++s) {
      const Side& side = sides_[s];
      if (side.stats == nullptr) continue;
      launch_.blocks(SumCounts{.counts = side.counts,
                               .n = side.blocks(),
                               .factors = side.factors,
                               .denominator = scale_denominator(side.q->spec),
                               .has_scale = static_cast<bool>(side.q->scale),
                               .forward = forward_,
                               .out = stats_ + s});
      launch_.download(side.stats, stats_ + s, sizeof(QuantStats));
    }
  }

  size_t index(const Side& side) const { return static_cast<size_t>(&side - sides_.data()); }

  // f(sides) for the chosen sides, those together that may be.
  template <class Chosen, class Together, class F>
  void for_each_group(const Chosen& chosen, const Together& together, const F& f) {
    std::array<bool, 2> done{};
    for (size_t s = 0; s < n_sides_; ++s) {
      if (done[s] || !chosen(sides_[s])) continue;
      std::array<Side*, 2> group{};
      size_t n = 0;
      for (size_t t = s; t < n_sides_; ++t) {
        if (!chosen(sides_[t]) || !together(sides_[t], sides_[s])) continue;
        group[n++] = &sides_[t];
        done[t] = true;
      }
      f(std::span<Side* const>(group).first(n));
    }
  }

  template <class Work>
  void fill(Work& work, std::span<Side* const> group) const {
    work.source = source_;
    work.n_sides = static_cast<int>(group.size());
    work.non_finite = non_finite_;
    for (size_t s = 0; s < group.size(); ++s) work.sides[s] = tile_side(*group[s]);
  }

  TileSide tile_side(const Side& side) const {
    const QuantSpec& spec = side.q->spec;
    TileSide t{.lines = side.lines,
               .amax = side.amax,
               .factors = side.factors,
               .has_factor = static_cast<bool>(side.q->scale),
               .denominator = scale_denominator(spec),
               .saturation = saturation_limit(element_of(spec.format)),
               .counts = side.counts};
    for (const QuantizedTensor* const q : {side.q, side.twin}) {
      if (q == nullptr) continue;
      SideOutput& to = t.outputs[t.n_outputs++];
      to.turned = is_turned(*q);
      to.native = code_output(*q, x_.rows, x_.cols);
      if (q->values && (q == side.q || q->values.data != side.q->values.data)) {
        to.values = q->values.as<Bf16>();
        to.values_ld = q->values.ld;
      }
      if (!q->tile_scales) continue;
      to.tile_scales = q->tile_scales.as<float>();
      to.tile_scales_ld = q->tile_scales.ld;
    }
    return t;
  }

  template <class Work>
  Work elements(const Side& side) const {
    Work work{.source = source_,
              .plan = side.lines.plan,
              .per_row = side.per_row && side.lines.along_rows,
              .per_col = side.per_row && !side.lines.along_rows,
              .amax = side.amax,
              .factors = side.factors,
              .non_finite = non_finite_,
              .saturation = saturation_limit(element_of(side.q->spec.format)),
              .counts = side.counts};
    if (side.q->tile_scales) {
      work.tile_scales = side.q->tile_scales.as<float>();
      work.tile_scales_ld = side.q->tile_scales.ld;
    }
    if (side.q->spec.amax == precision::AmaxScope::kDelayed && call_.delayed_amax) {
      work.recorded_amax = reinterpret_cast<uint32_t*>(call_.delayed_amax.as<float>());
    }
    for (const QuantizedTensor* const q : {side.q, side.twin}) {
      if (q == nullptr) continue;
      ElementOutput& to = work.outputs[work.n_outputs++];
      to.transposed = q->orientation == Orientation::kColumnwise;
      if (q->values && (q == side.q || q->values.data != side.q->values.data)) {
        to.values = q->values.as<Bf16>();
        to.values_ld = q->values.ld;
      }
      if (!q->codes) continue;
      to.codes = q->codes.as<uint8_t>();
      to.codes_ld = q->codes.ld;
    }
    return work;
  }

  const Launch& launch_;
  const Tensor& x_;
  TileSource source_;
  const QuantCall& call_;
  ForwardFactor forward_;
  int32_t* non_finite_ = nullptr;
  std::array<Side, 2> sides_{};
  size_t n_sides_ = 0;
  int64_t n_amaxes_ = 0, n_joined_ = 0;
  uint32_t* amaxes_ = nullptr;
  QuantStats* stats_ = nullptr;
};

}  // namespace qstep::ops::device
