// The block-scaled quantizers on a GPU: a thread block has a tile of the source in shared memory, a
// thread takes one unit after another of both orientations, in registers.
//
// Bytes per element of a BF16 source: 2 read, 2 written for each orientation's decoded values (once
// for square blocks whose orientations share their memory); codes 1 (fp8) or 1/2 (fp4), a scale of
// 1 byte per block. AmaxTiles reads 2 more, where a factor of the tensor or of a row comes first.
// Columnwise codes pass through shared memory.
//
// Units of 16 and 32 stay in registers; longer ones lie in the thread's local memory (L1).
//
// The bodies run on the host too (ops/team.h).
#pragma once

#include "ops/quantize_codes.h"
#include "ops/quantize_factors.h"
#include "ops/quantize_unit_counts.h"

namespace qstep::ops::device {

inline constexpr int kQuantizeThreads = 128;

// Where one orientation of what is quantized goes.
struct SideOutput {
  bool turned = false;     // operand_index
  Bf16* values = nullptr;  // null: not wanted
  int64_t values_ld = 0;
  float* tile_scales = nullptr;
  int64_t tile_scales_ld = 0;
  CodeOutput native;
};

// One orientation, or both where they hold the same codes.
struct TileSide {
  QuantLines lines;
  int n_outputs = 0;
  SideOutput outputs[2] = {};
  // Bits of magnitudes: the amax of the tensor, or of every line with AmaxScope::kRow; null where
  // none is needed.
  uint32_t* amax = nullptr;
  const TensorFactors* factors = nullptr;
  bool has_factor = false;       // one for the tensor
  float denominator = 1;         // of that factor
  float saturation = 0;          // saturation_limit
  UnitCounts* counts = nullptr;  // one per thread block; null: not counted

  QSTEP_HD bool per_line() const { return lines.plan.spec.amax == precision::AmaxScope::kRow; }
  QSTEP_HD bool joint() const {
    return lines.plan.spec.block.square() &&
           lines.plan.spec.four_over_six != precision::FourOverSix::kNone;
  }
};

// A tile and how its units are shared out.
template <int kUnit>
struct TileUnits {
  static constexpr int kTile = kUnit > 64 ? kUnit : 64;
  static constexpr int kAcross = kTile / kUnit;
  static constexpr int kJobs = kTile * kAcross;  // units of one orientation

  // Where unit `job` begins in the tile.
  struct Begin {
    int row, col;
  };
  QSTEP_HD static Begin begin(bool along_rows, int job) {
    return along_rows ? Begin{job / kAcross, job % kAcross * kUnit}
                      : Begin{job / kTile * kUnit, job % kTile};
  }
};

// What both passes share: the source and up to two sides whose units have the same length.
template <int kUnit>
struct TileWork : TileUnits<kUnit> {
  using Units = TileUnits<kUnit>;
  static constexpr int kThreads = kQuantizeThreads;

  TileSource source;
  int n_sides = 0;
  TileSide sides[2];
  int32_t* non_finite = nullptr;

  int64_t blocks() const { return n_tiles<Units::kTile>(source.rows, source.cols); }

 protected:
  // A unit in the tile and in the source.
  struct Job {
    int side, index, row, col;  // index: of the side's units
    int64_t line, first;
    bool inside;
  };
  QSTEP_HD Job job_of(const TilePlace& at, int64_t i) const {
    const int s = static_cast<int>(i) / Units::kJobs, index = static_cast<int>(i) % Units::kJobs;
    const QuantLines& lines = sides[s].lines;
    const auto begin = Units::begin(lines.along_rows, index);
    const int64_t row = at.row + begin.row, col = at.col + begin.col;
    return {.side = s,
            .index = index,
            .row = begin.row,
            .col = begin.col,
            .line = lines.along_rows ? row : col,
            .first = lines.along_rows ? col : row,
            .inside = row < source.rows && col < source.cols};
  }
  QSTEP_HD_INLINE void load_unit(char* shared, const Job& job, float* v) const {
    const bool along_rows = sides[job.side].lines.along_rows;
    with_tile<Units::kTile>(source, shared, [&](const auto& tile) {
      tile.template unit<kUnit>(job.row, job.col, along_rows, v);
    });
  }
  QSTEP_HD void note(uint32_t raw) const {
    if (raw >= 0x7F800000u && non_finite != nullptr) *non_finite = 1;
  }
};

// Pass 1: raises the amaxes of the sides that have any.
template <int kUnit>
struct AmaxTiles : TileWork<kUnit> {
  using Base = TileWork<kUnit>;
  using Base::kJobs, Base::kTile, Base::sides, Base::source, Base::n_sides;

  int shared_bytes() const {
    return tile_bytes<kTile>(source.bf16) + 2 * kTile * static_cast<int>(sizeof(uint32_t));
  }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    const TilePlace at = tile_place<kTile>(source.cols, block);
    // Per side and line of the tile; the first of a side for the tensor.
    auto* const found = reinterpret_cast<uint32_t*>(shared + tile_bytes<kTile>(source.bf16));
    team.each(2 * kTile, [&](int64_t i) { found[i] = 0; });
    with_tile<kTile>(source, shared, [&](const auto& tile) { tile.load(team, source, at); });
    team.sync();
    uint32_t of_thread[2] = {};  // the largest of its units, for the tensor
    team.each(n_sides * kJobs, [&](int64_t i) {
      const auto job = this->job_of(at, i);
      const TileSide& side = sides[job.side];
      if (!job.inside || side.amax == nullptr) return;
      float v[kUnit];
      this->load_unit(shared, job, v);
      precision::hadamard_unit<kUnit>(side.lines.plan, v);
      const auto own = precision::amax_of<kUnit>(v);
      const uint32_t amax = side.lines.keeps_nan() ? own.raw : precision::bits(own.amax);
      if (side.per_line()) {
        const int line = side.lines.along_rows ? job.row : job.col;
        raise_in_block(found + job.side * kTile + line, amax);
      } else {
        QSTEP_UNROLL(2)
        for (int s = 0; s < 2; ++s) {
          of_thread[s] = precision::max_bits(of_thread[s], s == job.side ? amax : 0u);
        }
      }
      this->note(own.raw);
    });
    team.each(Base::kThreads, [&](int64_t) {
      QSTEP_UNROLL(2)
      for (int s = 0; s < 2; ++s) raise_together(found + s * kTile, of_thread[s]);
    });
    team.sync();
    team.each(n_sides * kTile, [&](int64_t i) {
      const TileSide& side = sides[i / kTile];
      const int64_t begin = side.lines.along_rows ? at.row : at.col;
      const uint32_t amax = found[i];
      if (amax > 0) raise(side.amax + (side.per_line() ? begin + i % kTile : 0), amax);
    });
  }
};

// What pass 2 can leave; each holds what comes before it. Codes take registers, counts more.
enum class Leaves : uint8_t { kValues, kCodes, kCounts };

// Pass 2: quantizes.
template <int kUnit, Leaves kLeaves>
struct QuantizeTiles : TileWork<kUnit> {
  using Base = TileWork<kUnit>;
  using Base::kAcross, Base::kJobs, Base::kTile, Base::sides, Base::source, Base::n_sides;
  using typename Base::Job;

  int shared_bytes() const {
    return staged_at() + (staged_output() != nullptr ? StagedCodes<kTile>::kBytes : 0);
  }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    const TilePlace at = tile_place<kTile>(source.cols, block);
    auto* const squares = reinterpret_cast<uint32_t*>(shared + squares_at());
    bool square = false, joint = false;
    for (int s = 0; s < n_sides; ++s) {
      square = square || sides[s].lines.plan.spec.block.square();
      joint = joint || sides[s].joint();
    }
    team.each(2 * kAcross * kAcross, [&](int64_t i) { squares[i] = 0; });
    with_tile<kTile>(source, shared, [&](const auto& tile) { tile.load(team, source, at); });
    team.sync();
    if (square) {
      team.each(n_sides * kJobs, [&](int64_t i) { find_square_amax(shared, this->job_of(at, i)); });
      team.sync();
    }
    if constexpr (kUnit == kJointRows) {
      if (joint) {
        team.each(n_sides * kJobs, [&](int64_t i) { find_errors(shared, this->job_of(at, i)); });
        team.sync();
      }
    }
    team.each(n_sides * kJobs, [&](int64_t i) { quantize(shared, this->job_of(at, i)); });
    if constexpr (kLeaves != Leaves::kValues) {
      team.sync();
      if (const SideOutput* const output = staged_output(); output != nullptr) {
        team.each(StagedCodes<kTile>::vectors(output->native),
                  [&](int64_t i) { staged(shared).store(output->native, at, i); });
      }
    }
    if constexpr (kWatched) {
      auto* const counts = reinterpret_cast<UnitCounts*>(shared + counts_at());
      team.each(n_sides, [&](int64_t s) {
        if (sides[s].counts == nullptr) return;
        UnitCounts sum;
        for (int j = 0; j < kJobs; ++j) sum.add(counts[s * kJobs + j]);
        sides[s].counts[block] = sum;
      });
    }
  }

 private:
  static constexpr bool kWatched = kLeaves == Leaves::kCounts;
  static constexpr int kCountBytes = static_cast<int>(sizeof(UnitCounts));
  static constexpr int kErrorBytes =
      kUnit == kJointRows ? 2 * kJobs * static_cast<int>(sizeof(JointErrors)) : 0;

  // Shared memory: the tile, the amaxes of square blocks, the errors of their rows, the counts, the
  // codes of the output whose k runs down the rows: there is one at most.
  QSTEP_HD int squares_at() const { return tile_bytes<kTile>(source.bf16); }
  QSTEP_HD int errors_at() const {
    return squares_at() + 2 * kAcross * kAcross * static_cast<int>(sizeof(uint32_t));
  }
  QSTEP_HD int counts_at() const { return errors_at() + kErrorBytes; }
  QSTEP_HD int staged_at() const { return counts_at() + (kWatched ? 2 * kJobs * kCountBytes : 0); }
  QSTEP_HD StagedCodes<kTile> staged(char* shared) const {
    return {reinterpret_cast<uint8_t*>(shared) + staged_at()};
  }
  QSTEP_HD const SideOutput* staged_output() const {
    for (int s = 0; s < n_sides; ++s) {
      for (int o = 0; o < sides[s].n_outputs; ++o) {
        const SideOutput& output = sides[s].outputs[o];
        if (output.native.codes != nullptr && output.native.down) return &output;
      }
    }
    return nullptr;
  }

  QSTEP_HD static int square_of(const Job& job) {
    return (job.side * kAcross + job.row / kUnit) * kAcross + job.col / kUnit;
  }

  QSTEP_HD_INLINE void find_square_amax(char* shared, const Job& job) const {
    const TileSide& side = sides[job.side];
    if (!job.inside || !side.lines.plan.spec.block.square()) return;
    float v[kUnit];
    this->load_unit(shared, job, v);
    const auto own = precision::amax_of<kUnit>(v);
    raise_in_block(reinterpret_cast<uint32_t*>(shared + squares_at()) + square_of(job),
                   side.lines.keeps_nan() ? own.raw : precision::bits(own.amax));
  }

  // What a unit learns from outside.
  QSTEP_HD_INLINE precision::UnitContext<float> context_of(const char* shared,
                                                           const Job& job) const {
    const TileSide& side = sides[job.side];
    const precision::UnitPlan& plan = side.lines.plan;
    precision::UnitContext<float> context{};
    if (side.per_line()) {
      context.outer_amax = precision::from_bits(side.amax[job.line]);
      context.outer = precision::nvfp4_factors(context.outer_amax, plan.range, plan.headroom);
    } else {
      context.outer_amax = side.factors->outer_amax;
      context.outer = side.factors->outer;
    }
    if (plan.spec.block.square()) {
      const auto* const squares = reinterpret_cast<const uint32_t*>(shared + squares_at());
      context.block_amax = precision::from_bits(squares[square_of(job)]);
    }
    return context;
  }

  QSTEP_HD_INLINE void find_errors(char* shared, const Job& job) const {
    const TileSide& side = sides[job.side];
    if (!side.joint()) return;
    JointErrors errors;
    if (job.inside) {
      float v[kUnit];
      this->load_unit(shared, job, v);
      const auto context = context_of(shared, job);
      errors = joint_errors(side.lines.plan, v, joint_scales(side.lines.plan, context),
                            context.outer_amax);
    }
    reinterpret_cast<JointErrors*>(shared + errors_at())[job.side * kJobs + job.index] = errors;
  }

  QSTEP_HD_INLINE precision::BlockScale<float> joint_scale(
      const char* shared, const Job& job, const precision::UnitContext<float>& context) const {
    const TileSide& side = sides[job.side];
    const auto* const errors = reinterpret_cast<const JointErrors*>(shared + errors_at());
    const int first = job.side * kJobs + job.row / kUnit * kUnit * kAcross + job.index % kAcross;
    JointErrors rows[kJointRows];
    QSTEP_UNROLL(16)
    for (int l = 0; l < kJointRows; ++l) rows[l] = errors[first + l * kAcross];
    return better_of(joint_scales(side.lines.plan, context), rows,
                     side.lines.plan.spec.four_over_six);
  }

  QSTEP_HD_INLINE void quantize(char* shared, const Job& job) const {
    const TileSide& side = sides[job.side];
    const QuantLines& lines = side.lines;
    const precision::UnitPlan& plan = lines.plan;
    UnitCounts counts;
    if (job.inside) {
      float v[kUnit], before[kWatched ? kUnit : 1];
      this->load_unit(shared, job, v);
      if constexpr (kWatched) counts.source(v, kUnit);
      precision::hadamard_unit<kUnit>(plan, v);
      if constexpr (kWatched) {
        QSTEP_UNROLL_DEVICE(kUnit)
        for (int i = 0; i < kUnit; ++i) before[i] = v[i];
      }
      const auto context = context_of(shared, job);
      precision::UnitScales<float> scales;
      uint32_t raw = 0;
      float codes[kLeaves == Leaves::kValues ? 1 : kUnit];  // the elements without their scales
      float* const wanted = kLeaves == Leaves::kValues ? nullptr : codes;
      bool done = false;
      if constexpr (kUnit == kJointRows) {
        if (side.joint()) {
          const auto chosen = joint_scale(shared, job, context);
          scales.block[0] = chosen.s;
          scales.enc[0] = chosen.enc;
          raw = precision::amax_of<kUnit>(v).raw;
          precision::round_block<precision::ElementFormat::kE2m1, kUnit>(v, raw, chosen.enc,
                                                                         chosen.s, wanted);
          done = true;
        }
      }
      if (!done) {
        precision::quantize_unit<kUnit>(plan, v, context, scales, raw, wanted,
                                        LineRandom{lines, job.line, job.first});
      }
      this->note(raw);
      store(job, v, scales, context);
      if constexpr (kLeaves != Leaves::kValues) store_native(shared, job, codes, scales);
      if constexpr (kWatched) count(job, before, v, scales, context, counts);
    }
    if constexpr (kWatched) {
      reinterpret_cast<UnitCounts*>(shared + counts_at())[job.side * kJobs + job.index] = counts;
    }
  }

  QSTEP_HD_INLINE void store(const Job& job, const float* v,
                             const precision::UnitScales<float>& scales,
                             const precision::UnitContext<float>& context) const {
    const TileSide& side = sides[job.side];
    const QuantLines& lines = side.lines;
    const int64_t n = lines.length() - job.first;
    for (int o = 0; o < side.n_outputs; ++o) {
      const SideOutput& to = side.outputs[o];
      const int64_t row = lines.along_rows ? job.line : job.first;
      const int64_t col = lines.along_rows ? job.first : job.line;
      if (to.values != nullptr) {
        store_unit<kUnit>(to.values + row * to.values_ld + col, lines.along_rows ? 1 : to.values_ld,
                          n < kUnit ? n : kUnit, v);
      }
      if (to.tile_scales == nullptr) continue;
      if (side.per_line()) {
        if (job.first == 0) {
          to.tile_scales[job.line * to.tile_scales_ld] = row_factor(lines.plan, context.outer_amax);
        }
        continue;
      }
      if constexpr (kUnit == precision::kMaxUnit) {  // tiles are 128 along k
        const auto [r, k] = operand_index(to.turned, job.line, job.first);
        if (job.line % lines.tile.rows == 0) {
          to.tile_scales[r / lines.tile.rows * to.tile_scales_ld + k / lines.tile.k] = scales.outer;
        }
      }
    }
  }

  QSTEP_HD_INLINE void store_native(char* shared, const Job& job, const float* codes,
                                    const precision::UnitScales<float>& scales) const {
    const TileSide& side = sides[job.side];
    const int64_t left = side.lines.length() - job.first, n = left < kUnit ? left : kUnit;
    for (int o = 0; o < side.n_outputs; ++o) {
      const SideOutput& output = side.outputs[o];
      const CodeOutput& to = output.native;
      if (to.codes == nullptr) continue;
      if (to.down) {
        staged(shared).template put<kUnit>(to, output.turned, job.row, job.col, codes);
      } else {
        store_codes<kUnit>(to, job.line, job.first, codes, n);
      }
      store_block_scales<kUnit>(to, side.lines.plan.spec, output.turned, job.line, job.first, n,
                                scales.block);
    }
  }

  QSTEP_HD_INLINE void count(const Job& job, const float* before, const float* v,
                             const precision::UnitScales<float>& scales,
                             const precision::UnitContext<float>& context,
                             UnitCounts& counts) const {
    const TileSide& side = sides[job.side];
    const QuantLines& lines = side.lines;
    const precision::QuantSpec& spec = lines.plan.spec;
    const int64_t left = lines.length() - job.first;
    const int n = left < kUnit ? static_cast<int>(left) : kUnit;
    float factor = side.has_factor ? side.factors->stored / side.denominator : 1.0f;
    if (side.per_line()) factor = row_factor(lines.plan, context.outer_amax);
    if constexpr (kUnit == precision::kMaxUnit) {
      if (lines.tile.k > 0) factor = scales.outer;
    }
    for (int b = 0; b * spec.block.k < n; ++b) {
      const int first = b * spec.block.k;
      const int left_in_block = n - first < spec.block.k ? n - first : spec.block.k;
      counts.quantized(before + first, v + first, left_in_block, scales.enc[b], factor,
                       side.saturation);
      // A square block's scale counts with its first row.
      if (job.line % spec.block.rows == 0) counts.block_scale(scales.block[b]);
    }
    counts.elements = n;
  }
};

}  // namespace qstep::ops::device
