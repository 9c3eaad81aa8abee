// One orientation of a tensor as lines of units, for whoever quantizes one unit after another on
// one float at a time: a thread of a GPU, and the check of the CPU's lanes. Which elements a unit
// holds, which random bits it gets and what joins the rows of a square block; the arithmetic is
// precision/quantize_unit.h.
#pragma once

#include "ops/quantize/unit_plan.h"
#include "ops/recorder.h"

namespace qstep::ops {

// Plain data, the same on host and device.
struct QuantLines {
  precision::UnitPlan plan;
  Orientation orientation = Orientation::kRowwise;
  QuantRandom random;
  LogicalPlace place;
  Dtype source = Dtype::kBf16;
  int64_t rows = 0, cols = 0;  // of the source
  bool along_rows = true;      // lines are rows of the source; square blocks always run along them
  precision::BlockShape tile;  // of QuantizedTensor::tile_scales

  QSTEP_HD int64_t lines() const { return along_rows ? rows : cols; }
  QSTEP_HD int64_t length() const { return along_rows ? cols : rows; }
  // Where it comes in the order of the logical tensor's random bits (numerics 4.3).
  QSTEP_HD uint64_t random_index(int64_t line, int64_t i) const {
    const int64_t n_rows = place.logical_rows(rows), n_cols = place.logical_cols(cols);
    const int64_t row = place.logical_row(along_rows ? line : i);
    const int64_t col = place.logical_col(along_rows ? i : line);
    const uint64_t above = random.micro_batch * static_cast<uint64_t>(n_rows * n_cols);
    return above + static_cast<uint64_t>(along_rows ? row * n_cols + col : col * n_rows + row);
  }
  // FP8 keeps a NaN in an amax, which makes the scale 1; elsewhere it is left out (numerics 5).
  QSTEP_HD bool keeps_nan() const { return precision::is_fp8_format(plan.spec.format); }
};

inline QuantLines quant_lines(const QuantizedTensor& q, const Tensor& x, const QuantCall& call) {
  const bool square = q.spec.block.square();
  return {.plan = unit_plan(q.spec, q.orientation, x.dtype, call.random),
          .orientation = q.orientation,
          .random = call.random,
          .place = call.place,
          .source = x.dtype,
          .rows = x.rows,
          .cols = x.cols,
          .along_rows = square || q.orientation == Orientation::kRowwise,
          .tile = scale_tile(q.spec)};
}

// Whether the call's step or micro-batch decides any bit.
inline bool draws_random_bits(const QuantSpec& spec) {
  return spec.rounding != precision::Rounding::kNearest ||
         (spec.hadamard > 0 && spec.signs == precision::Signs::kPerStep);
}
// The lines of the same call at another moment.
inline QuantLines at(QuantLines lines, const Moment& moment) {
  lines.random = at(lines.random, moment);
  lines.plan = unit_plan(lines.plan.spec, lines.orientation, lines.source, lines.random);
  return lines;
}

// Element i of a line, as the operand counts it; turned: the operand's rows are not the lines.
struct OperandIndex {
  int64_t row, k;
};
QSTEP_HD inline OperandIndex operand_index(bool turned, int64_t line, int64_t i) {
  return turned ? OperandIndex{i, line} : OperandIndex{line, i};
}
inline bool is_turned(const QuantizedTensor& q) {
  return q.spec.block.square() && q.orientation == Orientation::kColumnwise;
}

// The random words of the unit that begins at element `first` of a line.
struct LineRandom {
  const QuantLines& lines;
  int64_t line, first;

  QSTEP_HD precision::RandomWords<float> call(uint64_t number, uint32_t stream) const {
    return precision::random_words<float>(lines.plan.seed, static_cast<uint32_t>(number),
                                          static_cast<uint32_t>(number >> 32), stream,
                                          lines.plan.step);
  }
  QSTEP_HD precision::RandomWords<float> operator()(int block, uint32_t stream) const {
    const uint64_t begin = lines.random_index(line, first) + static_cast<uint64_t>(16 * block);
    const auto offset = static_cast<int>(begin % 16);
    precision::RandomWords<float> words = call(begin / 16, stream);
    if (offset == 0) return words;
    // Lines whose length is no multiple of 16: the bytes lie in two calls.
    const precision::RandomWords<float> calls[2]{words, call(begin / 16 + 1, stream)};
    words = {};
    for (int i = 0; i < 16; ++i) {
      const int at = offset + i;
      words.w[i / 4] |= precision::random_byte(calls[at / 16], at % 16) << (8 * (i % 4));
    }
    return words;
  }
  QSTEP_HD uint32_t scale_word(int block, uint32_t stream) const {
    const uint64_t number = lines.random_index(line, first) / 16 + static_cast<uint64_t>(block);
    return call(number / 4, stream).w[number % 4];
  }
};

// ---- 4/6 for a block of 16x16 ----------------------------------------------------------------

inline constexpr int kJointRows = 16;

// The amax mapped to 6 and to 4.
struct JointScales {
  precision::BlockScale<float> six, four;
};
QSTEP_HD_INLINE JointScales joint_scales(const precision::UnitPlan& plan,
                                         const precision::UnitContext<float>& context) {
  return {precision::four_over_six_scale(context.block_amax, context.outer, plan.headroom, 1.0f),
          precision::four_over_six_scale(context.block_amax, context.outer, plan.headroom, 1.5f)};
}

// What one row errs by with either.
struct JointErrors {
  float six = 0, four = 0;
};
QSTEP_HD_INLINE JointErrors joint_errors(const precision::UnitPlan& plan, const float* v,
                                         const JointScales& scales, float outer_amax) {
  const precision::FourOverSixTensor<float> tensor{outer_amax, plan.range};
  const precision::FourOverSix rule = plan.spec.four_over_six;
  return {precision::four_over_six_error<16>(v, scales.six, tensor, rule),
          precision::four_over_six_error<16>(v, scales.four, tensor, rule)};
}

// The better one; the rows' errors (zero beyond the tensor) are added up in halves, 8 + 8, 4 + 4,
// ..., in place.
QSTEP_HD_INLINE precision::BlockScale<float> better_of(const JointScales& scales,
                                                       JointErrors (&rows)[kJointRows],
                                                       precision::FourOverSix rule) {
  const bool largest = rule == precision::FourOverSix::kAbsMax;
  QSTEP_UNROLL(4)
  for (int step = 1; step <= 4; ++step) {
    const int half = kJointRows >> step;
    QSTEP_UNROLL(8)
    for (int l = 0; l < half; ++l) {
      const JointErrors a = rows[l], b = rows[l + half];
      rows[l].six = largest ? precision::max(b.six, a.six) : a.six + b.six;
      rows[l].four = largest ? precision::max(b.four, a.four) : a.four + b.four;
    }
  }
  return rows[0].four < rows[0].six ? scales.four : scales.six;
}

}  // namespace qstep::ops
