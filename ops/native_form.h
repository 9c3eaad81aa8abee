// A quantized operand as the matrix units of a GPU read it: codes, and the scales that they apply
// themselves, in the order of cuBLASLt ("Narrow Precision Data Types Usage" in its documentation;
// numerics 9). The only place that knows these layouts.
#pragma once

#include <cstdint>

#include "precision/element_format.h"
#include "precision/quant_spec.h"
#include "precision/scale_layout.h"

namespace qstep::ops {

QSTEP_HD constexpr precision::ElementFormat element_of(precision::QuantFormat format) {
  switch (format) {
    case precision::QuantFormat::kMxfp8E4m3:
    case precision::QuantFormat::kFp8E4m3:
      return precision::ElementFormat::kE4m3;
    case precision::QuantFormat::kMxfp8E5m2:
    case precision::QuantFormat::kFp8E5m2:
      return precision::ElementFormat::kE5m2;
    default:
      return precision::ElementFormat::kE2m1;
  }
}

// Which elements share a scale, after cublasLtMatmulMatrixScale_t. What multiplies a whole operand
// beside it (nvfp4) goes into alpha.
enum class ScaleMode : uint8_t {
  kNone,      // no matrix unit takes the factors of the spec
  kTensor,    // SCALAR_32F: FP32, one for the operand
  kRow,       // OUTER_VEC_32F: FP32, a row of the operand
  kVec16,     // VEC16_UE4M3: 16 elements along k
  kVec32,     // VEC32_UE8M0: 32 elements along k
  kVec128,    // VEC128_32F: FP32, 128 elements along k
  kBlock128,  // BLK128x128_32F: FP32, 128 rows by 128 elements along k
};

struct NativeForm {
  precision::ElementFormat element = precision::ElementFormat::kE4m3;
  ScaleMode scales = ScaleMode::kNone;

  explicit constexpr operator bool() const { return scales != ScaleMode::kNone; }
  friend constexpr auto operator<=>(const NativeForm&, const NativeForm&) = default;
};

// Whether any GPU multiplies it is the library's to say (Ops::multiplies_codes).
constexpr NativeForm native_form(const precision::QuantSpec& spec) {
  using precision::AmaxScope;
  const auto form = [&](ScaleMode scales) { return NativeForm{element_of(spec.format), scales}; };
  if (!spec.quantized()) return {};
  if (is_mx_format(spec.format)) return form(ScaleMode::kVec32);
  if (spec.format == precision::QuantFormat::kNvfp4) {
    return spec.amax == AmaxScope::kTensor ? form(ScaleMode::kVec16) : NativeForm{};
  }
  if (!spec.block.whole_tensor()) {
    return form(spec.block.square() ? ScaleMode::kBlock128 : ScaleMode::kVec128);
  }
  return form(spec.amax == AmaxScope::kRow ? ScaleMode::kRow : ScaleMode::kTensor);
}

QSTEP_HD constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// ---- codes: [rows, code_bytes], contiguous along k ---------------------------------------------
//
// A byte each, of E2M1 two to a byte, the even element in the low nibble. Rows are multiples of 16
// bytes, and of a block that a scale goes with; what they have beyond k is zero and adds nothing.

// How long k is with what is added.
QSTEP_HD constexpr int64_t padded_k(NativeForm form, int64_t k) {
  const bool wide =
      form.element == precision::ElementFormat::kE2m1 || form.scales == ScaleMode::kVec32;
  return round_up(k, wide ? 32 : 16);
}
QSTEP_HD constexpr int64_t code_bytes(NativeForm form, int64_t k) {
  return padded_k(form, k) / (form.element == precision::ElementFormat::kE2m1 ? 2 : 1);
}

// ---- scales of blocks --------------------------------------------------------------------------
//
//   kVec16, kVec32   a byte each, in tiles of 128 rows by 4 blocks       precision/scale_layout.h
//   kVec128          FP32 [blocks along k, rows rounded up to 4]
//   kBlock128        FP32 [rows / 128, blocks along k rounded up to 4]
// What is rounded up is zero.

// Elements along k that share a scale; 0: there are no scales of blocks.
QSTEP_HD constexpr int scale_block_k(ScaleMode mode) {
  switch (mode) {
    case ScaleMode::kVec16:
      return 16;
    case ScaleMode::kVec32:
      return 32;
    case ScaleMode::kVec128:
    case ScaleMode::kBlock128:
      return 128;
    default:
      return 0;
  }
}
QSTEP_HD constexpr bool scales_are_bytes(ScaleMode mode) {
  return mode == ScaleMode::kVec16 || mode == ScaleMode::kVec32;
}

// Where the scale of row r and block c along k lies, counted in scales, in an operand [rows, k].
QSTEP_HD constexpr int64_t block_scale_offset(ScaleMode mode, int64_t r, int64_t c, int64_t rows,
                                              int64_t k) {
  if (mode == ScaleMode::kVec128) return c * round_up(rows, 4) + r;
  const int64_t blocks = round_up(k, scale_block_k(mode)) / scale_block_k(mode);
  if (mode == ScaleMode::kBlock128) return r / 128 * round_up(blocks, 4) + c;
  return precision::swizzled_scale_offset(r, c, blocks);
}

// How many there are, with what is rounded up; 0 without scales of blocks.
QSTEP_HD constexpr int64_t block_scale_count(ScaleMode mode, int64_t rows, int64_t k) {
  if (scale_block_k(mode) == 0) return 0;
  const int64_t blocks = round_up(k, scale_block_k(mode)) / scale_block_k(mode);
  if (mode == ScaleMode::kVec128) return blocks * round_up(rows, 4);
  if (mode == ScaleMode::kBlock128) return (rows + 127) / 128 * round_up(blocks, 4);
  return precision::swizzled_scale_bytes(rows, blocks);
}

// Whether some of them belong to no block.
QSTEP_HD constexpr bool block_scales_are_padded(ScaleMode mode, int64_t rows, int64_t k) {
  const int64_t blocks = round_up(k, scale_block_k(mode)) / scale_block_k(mode);
  const int64_t lines = mode == ScaleMode::kBlock128 ? (rows + 127) / 128 : rows;
  return block_scale_count(mode, rows, k) != lines * blocks;
}

}  // namespace qstep::ops
