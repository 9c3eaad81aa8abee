// What the passes of the block-scaled quantizers share on a GPU: a thread block has a tile of the
// source in shared memory, a thread takes one unit after another of each orientation, in registers.
// The bodies run on the host too (ops/team.h).
#pragma once

#include "ops/quantize/quantize_codes.h"
#include "ops/quantize/quantize_factors.h"
#include "ops/quantize/quantize_unit_counts.h"

namespace qstep::ops::device {

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

// A tile of kSize x kSize and how the units of kUnit elements are shared out.
template <int kUnit, int kSize>
struct TileUnits {
  static constexpr int kTile = kSize;
  static constexpr int kAcross = kTile / kUnit;
  static constexpr int kJobs = kTile * kAcross;  // units of one orientation
  static constexpr int kThreads = kTile > 64 ? 256 : 128;
  // At least: what the compiler may not exceed in registers, so that some load while others
  // compute.
  static constexpr int kBlocksPerSm = kTile > 64 ? 3 : 4;

  // Where unit `job` begins in the tile.
  struct Begin {
    int row, col;
  };
  QSTEP_HD static Begin begin(bool along_rows, int job) {
    return along_rows ? Begin{job / kAcross, job % kAcross * kUnit}
                      : Begin{job / kTile * kUnit, job % kTile};
  }
};

// The source and up to two sides whose units have the same length.
template <int kUnit, int kSize>
struct TileWork : TileUnits<kUnit, kSize> {
  using Units = TileUnits<kUnit, kSize>;

  TileSource source;
  int n_sides = 0;
  TileSide sides[2];
  int32_t* non_finite = nullptr;

  int64_t blocks() const { return n_tiles<kSize>(source.rows, source.cols); }

  // For recorded calls (ops/recorder.h).
  bool depends_on_moment() const {
    bool any = false;
    for (int s = 0; s < n_sides; ++s) any = any || draws_random_bits(sides[s].lines.plan.spec);
    return any;
  }
  void move_to(const Moment& moment) {
    for (int s = 0; s < n_sides; ++s) sides[s].lines = at(sides[s].lines, moment);
  }

 protected:
  // A unit in the tile and in the source.
  struct Job {
    int index, row, col;  // index: of the side's units
    int64_t line, first;
    bool inside;
  };
  QSTEP_HD_INLINE Job job_of(const TilePlace& at, bool along_rows, int64_t i) const {
    const int index = static_cast<int>(i);
    const auto begin = Units::begin(along_rows, index);
    const int64_t row = at.row + begin.row, col = at.col + begin.col;
    return {.index = index,
            .row = begin.row,
            .col = begin.col,
            .line = along_rows ? row : col,
            .first = along_rows ? col : row,
            .inside = row < source.rows && col < source.cols};
  }
  // f(side, its number, job) for every unit of every side, but for what lies outside the source.
  template <class Team, class F>
  QSTEP_HD_INLINE void each_unit(const Team& team, const TilePlace& at, const F& f) const {
    for (int s = 0; s < n_sides; ++s) {
      const TileSide& side = sides[s];
      team.each(Units::kJobs, [&](int64_t i) {
        const Job job = job_of(at, side.lines.along_rows, i);
        if (job.inside) f(side, s, job);
      });
    }
  }
  QSTEP_HD_INLINE void load_unit(char* shared, const TileSide& side, const Job& job,
                                 float* v) const {
    with_tile<kSize>(source, shared, [&](const auto& tile) {
      tile.template unit<kUnit>(job.row, job.col, side.lines.along_rows, v);
    });
  }
  template <class Team>
  QSTEP_HD_INLINE void load_tile(const Team& team, char* shared, const TilePlace& at) const {
    with_tile<kSize>(source, shared, [&](const auto& tile) { tile.load(team, source, at); });
  }
  QSTEP_HD void note(uint32_t raw) const {
    if (raw >= 0x7F800000u && non_finite != nullptr) *non_finite = 1;
  }
};

}  // namespace qstep::ops::device
