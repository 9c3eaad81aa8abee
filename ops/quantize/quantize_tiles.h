// The second pass of the block-scaled quantizers on a GPU, a kernel for each format, length of a
// unit and for what it leaves.
//
// Bytes per element of a BF16 source: 2 read; 2 written for each orientation's decoded values (once
// for square blocks whose orientations share their memory); codes 1 (fp8) or 1/2 (fp4), a scale of
// 1 byte per block. Columnwise codes pass through shared memory.
//
// A unit lies in registers. FP8's blocks of 128 are cut into units of 32, whose amaxes meet in
// shared memory, as those of a square block's rows do (but behind a Hadamard transform).
#pragma once

#include "ops/quantize/quantize_tile_work.h"

namespace qstep::ops::device {

// NVFP4 as most recipes have it: the amax of the tensor, no 4/6, no correction of scales. What the
// others compute with would take a plain unit's registers.
enum class Nvfp4Rules : bool { kPlain, kAny };
constexpr bool is_plain(const precision::QuantSpec& spec) {
  return spec.amax == precision::AmaxScope::kTensor &&
         spec.four_over_six == precision::FourOverSix::kNone &&
         spec.rounding != precision::Rounding::kMsEden;
}

// A format, the length of its units and of its blocks, and the tiles that its thread blocks take.
template <precision::QuantFormat kOf, int kLength, Nvfp4Rules kRules = Nvfp4Rules::kAny>
struct TileFormat {
  static constexpr bool kPlain = kRules == Nvfp4Rules::kPlain;
  static constexpr precision::QuantFormat kFormat = kOf;
  static constexpr precision::ElementFormat kElement = element_of(kOf);
  static constexpr int kUnit = kLength;
  static constexpr int kBlock = kOf == precision::QuantFormat::kNvfp4 ? 16
                                : is_fp8_format(kOf)                  ? precision::kMaxUnit
                                                                      : 32;
  static constexpr int kTile = kUnit > 64 || kBlock > 64 ? 128 : 64;
};

// f(TileFormat) of a plan of blocks.
template <class F>
void dispatch_tile_format(const precision::UnitPlan& plan, const F& f) {
  using precision::QuantFormat;
  const auto units_of_32_on = [&]<QuantFormat kFormat>() {
    if (plan.unit == 32) return f(TileFormat<kFormat, 32>{});
    if (plan.unit == 64) return f(TileFormat<kFormat, 64>{});
    f(TileFormat<kFormat, 128>{});
  };
  switch (plan.spec.format) {
    case QuantFormat::kNvfp4:
      if (plan.unit == 16 && is_plain(plan.spec)) {
        return f(TileFormat<QuantFormat::kNvfp4, 16, Nvfp4Rules::kPlain>{});
      }
      if (plan.unit == 16) return f(TileFormat<QuantFormat::kNvfp4, 16>{});
      return units_of_32_on.template operator()<QuantFormat::kNvfp4>();
    case QuantFormat::kMxfp4:
      return units_of_32_on.template operator()<QuantFormat::kMxfp4>();
    case QuantFormat::kMxfp8E4m3:
      return units_of_32_on.template operator()<QuantFormat::kMxfp8E4m3>();
    case QuantFormat::kMxfp8E5m2:
      return units_of_32_on.template operator()<QuantFormat::kMxfp8E5m2>();
    case QuantFormat::kFp8E4m3:
      if (plan.spec.hadamard == 0) return f(TileFormat<QuantFormat::kFp8E4m3, 32>{});
      return f(TileFormat<QuantFormat::kFp8E4m3, precision::kMaxUnit>{});
    case QuantFormat::kFp8E5m2:
      if (plan.spec.hadamard == 0) return f(TileFormat<QuantFormat::kFp8E5m2, 32>{});
      return f(TileFormat<QuantFormat::kFp8E5m2, precision::kMaxUnit>{});
    case QuantFormat::kBf16:
      break;
  }
}

template <class Format, Leaves kLeaves>
struct QuantizeTiles : TileWork<Format::kUnit, Format::kTile> {
  using Base = TileWork<Format::kUnit, Format::kTile>;
  using Base::kAcross, Base::kJobs, Base::kTile, Base::sides, Base::source, Base::n_sides;
  using typename Base::Job;

  int shared_bytes() const {
    int bytes = work_at();
    if (kLeaves == Leaves::kCounts) bytes += kJobs * static_cast<int>(sizeof(UnitCounts));
    if (staged_output() != nullptr) bytes += Staged::kBytes;
    return bytes;
  }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    const TilePlace at = tile_place<kTile>(source.cols, block);
    const SideOutput* const output = staged_output();
    bool amaxes = false, joint = false;
    for (int s = 0; s < n_sides; ++s) {
      amaxes = amaxes || has_block_amax(sides[s]);
      joint = joint || sides[s].joint();
    }
    team.each(2 * kBlocks, [&](int64_t i) { block_amaxes(shared)[i] = 0; });
    if (output != nullptr) {
      team.each(Staged::kVectors, [&](int64_t i) { staged(shared).clear(i); });
    }
    this->load_tile(team, shared, at);
    team.sync();
    if (amaxes) {
      this->each_unit(team, at, [&](const TileSide& side, int s, const Job& job) {
        if (has_block_amax(side)) find_block_amax(shared, side, s, job);
      });
      team.sync();
    }
    if constexpr (kHasJoint) {
      if (joint) {
        team.each(2 * kJobs, [&](int64_t i) { errors(shared)[i] = {}; });
        team.sync();
        this->each_unit(team, at, [&](const TileSide& side, int s, const Job& job) {
          if (side.joint()) find_errors(shared, side, s, job);
        });
        team.sync();
      }
    }
    if constexpr (kLeaves == Leaves::kCounts) {
      for (int s = 0; s < n_sides; ++s) count_side(team, shared, at, s, block);
    } else {
      this->each_unit(team, at, [&](const TileSide& side, int s, const Job& job) {
        float v[kUnit];
        const Quantized q = quantize(shared, side, s, job, v, CodesWanted{});
        store_tile_scales(side, job, q);
        if constexpr (kLeaves == Leaves::kValues) store_values(side, job, v);
        if constexpr (kLeaves == Leaves::kCodes) store_native(shared, side, job, v, q.scales);
      });
    }
    if (output != nullptr) {
      team.sync();
      team.each(Staged::kStored, [&](int64_t i) { staged(shared).store(output->native, at, i); });
    }
  }

 private:
  static constexpr int kUnit = Format::kUnit, kBlock = Format::kBlock;
  static constexpr bool kParts = kUnit < kBlock;
  // 4/6 for a block of 16x16.
  static constexpr bool kHasJoint =
      Format::kFormat == precision::QuantFormat::kNvfp4 && kUnit == kJointRows && !Format::kPlain;
  // Blocks of a side that have their amax from several units: squares, or rows cut into parts.
  static constexpr int kBlocks = kParts ? kTile : kAcross * kAcross;
  using Staged = StagedCodes<Format::kElement, kTile>;
  using CodesWanted = std::conditional_t<kLeaves == Leaves::kCodes, precision::CodesAlone, float*>;

  // What a unit leaves beside its numbers.
  struct Quantized {
    precision::UnitContext<float> context;
    precision::UnitScales<float> scales;
  };

  // Shared memory: the tile, the amaxes of blocks, the errors of square blocks' rows, then the
  // counts of a side's units, or the codes of the output whose k runs down the rows: there is one
  // at most.
  QSTEP_HD uint32_t* block_amaxes(char* shared) const {
    return reinterpret_cast<uint32_t*>(shared + tile_bytes<kTile>(source.bf16));
  }
  QSTEP_HD int errors_at() const {
    constexpr int kAmaxBytes = 2 * kBlocks * static_cast<int>(sizeof(uint32_t));
    return tile_bytes<kTile>(source.bf16) + (kAmaxBytes + 15) / 16 * 16;
  }
  QSTEP_HD JointErrors* errors(char* shared) const {
    return reinterpret_cast<JointErrors*>(shared + errors_at());
  }
  QSTEP_HD int work_at() const {
    return errors_at() + (kHasJoint ? 2 * kJobs * static_cast<int>(sizeof(JointErrors)) : 0);
  }
  QSTEP_HD UnitCounts* unit_counts(char* shared) const {
    return reinterpret_cast<UnitCounts*>(shared + work_at());
  }
  QSTEP_HD Staged staged(char* shared) const {
    return {reinterpret_cast<uint8_t*>(shared) + work_at()};
  }
  QSTEP_HD const SideOutput* staged_output() const {
    const int n = kLeaves == Leaves::kCodes ? n_sides : 0;
    for (int s = 0; s < n; ++s) {
      for (int o = 0; o < sides[s].n_outputs; ++o) {
        const SideOutput& output = sides[s].outputs[o];
        if (output.native.codes != nullptr && output.native.down) return &output;
      }
    }
    return nullptr;
  }

  QSTEP_HD static bool has_block_amax(const TileSide& side) {
    return kParts || side.lines.plan.spec.block.square();
  }
  QSTEP_HD static int block_of(const TileSide& side, int s, const Job& job) {
    if constexpr (kParts) {
      if (side.lines.plan.spec.block.square()) return s * kBlocks;
      return s * kBlocks + (side.lines.along_rows ? job.row : job.col);
    }
    return (s * kAcross + job.row / kUnit) * kAcross + job.col / kUnit;
  }

  QSTEP_HD_INLINE void find_block_amax(char* shared, const TileSide& side, int s,
                                       const Job& job) const {
    float v[kUnit];
    this->load_unit(shared, side, job, v);
    const auto own = precision::amax_of<kUnit>(v);
    raise_in_block(block_amaxes(shared) + block_of(side, s, job),
                   side.lines.keeps_nan() ? own.raw : precision::bits(own.amax));
  }

  // The plan of a side; what its format excludes, at compile time.
  QSTEP_HD_INLINE static precision::UnitPlan plan_of(const TileSide& side) {
    precision::UnitPlan plan = side.lines.plan;
    if constexpr (Format::kPlain) {
      plan.spec.amax = precision::AmaxScope::kTensor;
      plan.spec.four_over_six = precision::FourOverSix::kNone;
      if (plan.spec.rounding == precision::Rounding::kMsEden) plan.spec.rounding = {};
    }
    return plan;
  }

  // What a unit learns from outside.
  QSTEP_HD_INLINE precision::UnitContext<float> context_of(char* shared, const TileSide& side,
                                                           int s, const Job& job) const {
    precision::UnitContext<float> context{};
    if constexpr (Format::kFormat == precision::QuantFormat::kNvfp4) {
      const precision::UnitPlan& plan = side.lines.plan;
      if (!Format::kPlain && side.per_line()) {
        context.outer_amax = precision::from_bits(side.amax[job.line]);
        context.outer = precision::nvfp4_factors(context.outer_amax, plan.range, plan.headroom);
      } else {
        context.outer_amax = side.factors->outer_amax;
        context.outer = side.factors->outer;
      }
    }
    if (has_block_amax(side)) {
      context.block_amax = precision::from_bits(block_amaxes(shared)[block_of(side, s, job)]);
    }
    return context;
  }

  QSTEP_HD_INLINE void find_errors(char* shared, const TileSide& side, int s,
                                   const Job& job) const {
    float v[kUnit];
    this->load_unit(shared, side, job, v);
    const auto context = context_of(shared, side, s, job);
    errors(shared)[s * kJobs + job.index] = joint_errors(
        side.lines.plan, v, joint_scales(side.lines.plan, context), context.outer_amax);
  }
  QSTEP_HD_INLINE precision::BlockScale<float> joint_scale(
      char* shared, const TileSide& side, int s, const Job& job,
      const precision::UnitContext<float>& context) const {
    const int first = s * kJobs + job.row / kUnit * kUnit * kAcross + job.index % kAcross;
    JointErrors rows[kJointRows];
    QSTEP_UNROLL(16)
    for (int l = 0; l < kJointRows; ++l) rows[l] = errors(shared)[first + l * kAcross];
    return better_of(joint_scales(side.lines.plan, context), rows,
                     side.lines.plan.spec.four_over_six);
  }

  // v becomes what precision::quantize_unit_of leaves with these `codes`.
  template <class Codes>
  QSTEP_HD_INLINE Quantized quantize(char* shared, const TileSide& side, int s, const Job& job,
                                     float* v, Codes codes) const {
    const precision::UnitPlan& plan = side.lines.plan;
    this->load_unit(shared, side, job, v);
    if constexpr (!kParts) precision::hadamard_unit<kUnit>(plan, v);
    return quantize_transformed(shared, side, s, job, v, codes);
  }
  template <class Codes>
  QSTEP_HD_INLINE Quantized quantize_transformed(char* shared, const TileSide& side, int s,
                                                 const Job& job, float* v, Codes codes) const {
    const precision::UnitPlan plan = plan_of(side);
    Quantized q{.context = context_of(shared, side, s, job), .scales = {}};
    uint32_t raw = 0;
    if constexpr (kHasJoint) {
      if (side.joint()) {
        const auto chosen = joint_scale(shared, side, s, job, q.context);
        q.scales.block[0] = chosen.s;
        q.scales.enc[0] = chosen.enc;
        raw = precision::amax_of<kUnit>(v).raw;
        precision::round_block<Format::kElement, kUnit>(v, raw, chosen.enc, chosen.s, codes);
        this->note(raw);
        return q;
      }
    }
    precision::quantize_unit_of<Format::kFormat, kUnit>(
        plan, v, q.context, q.scales, raw, codes, LineRandom{side.lines, job.line, job.first});
    this->note(raw);
    return q;
  }

  QSTEP_HD_INLINE void store_values(const TileSide& side, const Job& job, const float* v) const {
    const bool along_rows = side.lines.along_rows;
    const int64_t n = side.lines.length() - job.first;
    for (int o = 0; o < side.n_outputs; ++o) {
      const SideOutput& to = side.outputs[o];
      if (to.values == nullptr) continue;
      const int64_t row = along_rows ? job.line : job.first;
      const int64_t col = along_rows ? job.first : job.line;
      store_unit<kUnit>(to.values + row * to.values_ld + col, along_rows ? 1 : to.values_ld,
                        n < kUnit ? n : kUnit, v);
    }
  }

  QSTEP_HD_INLINE void store_tile_scales(const TileSide& side, const Job& job,
                                         const Quantized& q) const {
    const QuantLines& lines = side.lines;
    for (int o = 0; o < side.n_outputs; ++o) {
      const SideOutput& to = side.outputs[o];
      if (to.tile_scales == nullptr) continue;
      if (side.per_line()) {
        if (job.first == 0) {
          to.tile_scales[job.line * to.tile_scales_ld] =
              row_factor(lines.plan, q.context.outer_amax);
        }
        continue;
      }
      if constexpr (kTile == precision::kMaxUnit) {  // tiles are 128 along k, from its first unit
        const bool square = lines.plan.spec.block.square();
        if ((square ? job.row : 0) != 0 || job.first % precision::kMaxUnit != 0) continue;
        const auto [r, k] = operand_index(to.turned, job.line, job.first);
        to.tile_scales[(square ? r / precision::kMaxUnit : r) * to.tile_scales_ld +
                       k / precision::kMaxUnit] = q.scales.outer;
      }
    }
  }

  QSTEP_HD_INLINE void store_native(char* shared, const TileSide& side, const Job& job,
                                    const float* numbers,
                                    const precision::UnitScales<float>& scales) const {
    const int64_t left = side.lines.length() - job.first;
    const int n = left < kUnit ? static_cast<int>(left) : kUnit;
    for (int o = 0; o < side.n_outputs; ++o) {
      const SideOutput& output = side.outputs[o];
      const CodeOutput& to = output.native;
      if (to.codes == nullptr) continue;
      if (to.down) {
        staged(shared).template put<kUnit>(output.turned, job.row, job.col, numbers, n);
      } else {
        store_code_words<Format::kElement, kUnit>(to.codes + job.line * to.ld, to.ld, job.first,
                                                  numbers, n);
      }
      store_block_scales<kUnit, kBlock>(to, side.lines.plan.spec, output.turned, job.line,
                                        job.first, n, scales.block);
    }
  }

  // The counts of each unit, then of the tile, in the order of the units.
  template <class Team>
  QSTEP_HD void count_side(const Team& team, char* shared, const TilePlace& at, int s,
                           int64_t block) const {
    const TileSide& side = sides[s];
    if (side.counts == nullptr) return;
    UnitCounts* const counts = unit_counts(shared);
    team.each(kJobs, [&](int64_t i) {
      const Job job = this->job_of(at, side.lines.along_rows, i);
      counts[i] = job.inside ? count_unit(shared, side, s, job) : UnitCounts{};
    });
    team.sync();
    team.each(1, [&](int64_t) {
      UnitCounts sum;
      for (int j = 0; j < kJobs; ++j) sum.add(counts[j]);
      side.counts[block] = sum;
    });
    team.sync();  // the next side's counts lie in the same memory
  }
  QSTEP_HD UnitCounts count_unit(char* shared, const TileSide& side, int s, const Job& job) const {
    const QuantLines& lines = side.lines;
    const precision::UnitPlan& plan = lines.plan;
    UnitCounts counts;
    float v[kUnit], before[kUnit];
    this->load_unit(shared, side, job, v);
    counts.source(v, kUnit);
    if constexpr (!kParts) precision::hadamard_unit<kUnit>(plan, v);
    QSTEP_UNROLL_DEVICE(kUnit)
    for (int i = 0; i < kUnit; ++i) before[i] = v[i];
    float* const no_codes = nullptr;
    const Quantized q = quantize_transformed(shared, side, s, job, v, no_codes);
    const int64_t left = lines.length() - job.first;
    const int n = left < kUnit ? static_cast<int>(left) : kUnit;
    float factor = side.has_factor ? side.factors->stored / side.denominator : 1.0f;
    if (side.per_line()) factor = row_factor(plan, q.context.outer_amax);
    if (kTile == precision::kMaxUnit && lines.tile.k > 0) factor = q.scales.outer;
    constexpr int kPart = kUnit < kBlock ? kUnit : kBlock;
    for (int b = 0; b * kPart < n; ++b) {
      const int first = b * kPart;
      counts.quantized(before + first, v + first, n - first < kPart ? n - first : kPart,
                       q.scales.enc[b], factor, side.saturation);
      // The scale of a block counts with its first part, that of a square one with its first row.
      const bool first_line = !plan.spec.block.square() || job.line % kBlock == 0;
      if (first_line && (job.first + first) % kBlock == 0) counts.block_scale(q.scales.block[b]);
    }
    counts.elements = n;
    return counts;
  }
};

}  // namespace qstep::ops::device
