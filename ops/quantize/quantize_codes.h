// Codes and block scales of a native operand (ops/native_form.h), as the threads of a quantizer
// leave them. A thread makes words of a unit's codes. Where k runs along the rows of the source it
// writes them out; where it runs down the rows, they pass through shared memory, so that what is
// written lies side by side.
#pragma once

#include "ops/quantize/quantize_lines.h"
#include "ops/quantize/quantize_tile_source.h"

namespace qstep::ops::device {

struct CodeOutput {
  NativeForm form = {};
  bool down = false;             // the operand's rows are the source's columns
  uint8_t* codes = nullptr;      // [rows, ld]; null: not wanted
  void* block_scales = nullptr;  // null: none of blocks
  int64_t rows = 0, k = 0;       // of the operand
  int64_t ld = 0;                // bytes, a multiple of 16, as the address is

  QSTEP_HD bool four_bits() const { return form.element == precision::ElementFormat::kE2m1; }
  // Of row r and block c along k; blocks of kBlock elements have FP32 scales where they are FP8's.
  template <int kBlock>
  QSTEP_HD_INLINE void put_scale(const precision::QuantSpec& spec, int64_t r, int64_t c,
                                 float scale) const {
    if constexpr (kBlock == 128) {
      static_cast<float*>(block_scales)[block_scale_offset(form.scales, r, c, rows, k)] = scale;
    } else {
      constexpr ScaleMode kMode = kBlock == 16 ? ScaleMode::kVec16 : ScaleMode::kVec32;
      static_cast<uint8_t*>(block_scales)[block_scale_offset(kMode, r, c, rows, k)] =
          encode_block_scale(spec.format, scale);
    }
  }
};
// Of a source [rows, cols].
inline CodeOutput code_output(const QuantizedTensor& q, int64_t rows, int64_t cols) {
  if (!q.codes) return {};
  const bool row = q.orientation == Orientation::kRowwise;
  return {.form = native_form(q.spec),
          .down = !row,
          .codes = q.codes.as<uint8_t>(),
          .block_scales = q.block_scales.data,
          .rows = row ? rows : cols,
          .k = row ? cols : rows,
          .ld = q.codes.ld};
}

// The codes of a unit in words: eight of E2M1, four of the others. `numbers` are what
// precision::encode_nearest makes codes of; those from element n on leave zeros.
template <precision::ElementFormat kFormat>
struct CodeWords {
  static constexpr int kPerWord = kFormat == precision::ElementFormat::kE2m1 ? 8 : 4;
  static constexpr int kBits = 32 / kPerWord;

  QSTEP_HD_INLINE static uint32_t word(const float* numbers, int n, int index) {
    const float* const x = numbers + index * kPerWord;
    uint32_t word = 0;
    QSTEP_UNROLL(4)
    for (int i = 0; i < kPerWord; i += 2) {
      word |= precision::encode_nearest<kFormat>(x[i], x[i + 1]) << (kBits * i);
    }
    const int left = n - index * kPerWord;
    if (left >= kPerWord) return word;
    return left <= 0 ? 0u : word & ((1u << (kBits * left)) - 1u);
  }
};

// Units are 8 bytes or multiples of 16; what lies beyond the row's bytes is not written.
template <precision::ElementFormat kFormat, int kUnit>
QSTEP_HD_INLINE void store_code_words(uint8_t* row, int64_t row_bytes, int64_t first,
                                      const float* numbers, int n) {
  using Codes = CodeWords<kFormat>;
  constexpr int kBytes = kUnit / Codes::kPerWord * 4;
  int64_t at = first / Codes::kPerWord * 4;
  if constexpr (kBytes % 16 == 0) {
    QSTEP_UNROLL_DEVICE(kUnit)
    for (int v = 0; v < kBytes / 16; ++v, at += 16) {
      Words words;
      QSTEP_UNROLL(4)
      for (int i = 0; i < 4; ++i) words.w[i] = Codes::word(numbers, n, 4 * v + i);
      if (at < row_bytes) *reinterpret_cast<Words*>(row + at) = words;
    }
  } else {
    const TwoWords words{{Codes::word(numbers, n, 0), Codes::word(numbers, n, 1)}};
    if (at < row_bytes) *reinterpret_cast<TwoWords*>(row + at) = words;
  }
}

// The codes of a tile of an operand whose k runs down the rows of the source: rows of the operand,
// which are columns of the source, sixteen bytes further apart than they are long. From zeros.
template <precision::ElementFormat kFormat, int kTile>
struct StagedCodes {
  static constexpr int kPerByte = kFormat == precision::ElementFormat::kE2m1 ? 2 : 1;
  static constexpr int kRowBytes = kTile / kPerByte, kStride = kRowBytes + 16;
  static constexpr int kBytes = kTile * kStride;
  static constexpr int kVectors = kBytes / static_cast<int>(sizeof(Words));
  static constexpr int kStored = kTile * kRowBytes / static_cast<int>(sizeof(Words));

  uint8_t* bytes;

  QSTEP_HD_INLINE void clear(int64_t i) const { reinterpret_cast<Words*>(bytes)[i] = Words{}; }

  // A unit that begins at (row, col) of the tile of the source, of which n elements are in the
  // tensor. turned: it runs along the row, across the operand's rows.
  template <int kUnit>
  QSTEP_HD_INLINE void put(bool turned, int row, int col, const float* numbers, int n) const {
    if (!turned) {
      store_code_words<kFormat, kUnit>(bytes + col * kStride, kRowBytes, row, numbers, n);
      return;
    }
    QSTEP_UNROLL_DEVICE(kUnit)
    for (int i = 0; i < kUnit; i += 2) {
      const uint32_t pair = precision::encode_nearest<kFormat>(numbers[i], numbers[i + 1]);
      put_one(row, col + i, pair);
      put_one(row, col + i + 1, pair >> (8 / kPerByte));
    }
  }

  // Sixteen bytes of a row of the operand; neighbouring threads write side by side. at: of the tile
  // in the source.
  QSTEP_HD_INLINE void store(const CodeOutput& to, const TilePlace& at, int64_t i) const {
    constexpr int kPerRow = kRowBytes / static_cast<int>(sizeof(Words));
    const int row = static_cast<int>(i) / kPerRow, first = static_cast<int>(i) % kPerRow * 16;
    const int64_t byte = at.row / kPerByte + first;
    if (at.col + row >= to.rows || byte >= to.ld) return;
    *reinterpret_cast<Words*>(to.codes + (at.col + row) * to.ld + byte) =
        *reinterpret_cast<const Words*>(bytes + row * kStride + first);
  }

 private:
  // The code in the low bits of `bits`. Two of E2M1, of two threads, share a byte.
  QSTEP_HD_INLINE void put_one(int k, int row, uint32_t bits) const {
    uint8_t* const at = bytes + row * kStride;
    if constexpr (kPerByte == 1) {
      at[k] = static_cast<uint8_t>(bits);
    } else {
      add_bits(reinterpret_cast<uint32_t*>(at) + k / 8, (bits & 0xFu) << (4 * (k % 8)));
    }
  }
};

// The scales of a unit's blocks, which are kBlock elements long. A square block has its scale from
// the first of its lines, once for every row of the operand that it covers.
template <int kUnit, int kBlock>
QSTEP_HD_INLINE void store_block_scales(const CodeOutput& to, const precision::QuantSpec& spec,
                                        bool turned, int64_t line, int64_t first, int n,
                                        const float* scales) {
  if (to.block_scales == nullptr) return;
  const bool square = spec.block.square();
  if (square && static_cast<uint32_t>(line) % kBlock != 0) return;
  if (kUnit < kBlock && static_cast<uint32_t>(first) % kBlock != 0) return;
  const uint32_t first_block = static_cast<uint32_t>(first) / kBlock;
  QSTEP_UNROLL_DEVICE(kUnit)
  for (int b = 0; b == 0 || b < kUnit / kBlock; ++b) {
    if (b * kBlock >= n) continue;
    if (!square) {
      to.put_scale<kBlock>(spec, line, first_block + static_cast<uint32_t>(b), scales[b]);
      continue;
    }
    const auto [row, k] = operand_index(turned, line, first + b * kBlock);
    const int64_t covered = to.form.scales != ScaleMode::kBlock128 ? kBlock : 1;
    for (int64_t r = row; r < row + covered && r < to.rows; ++r) {
      to.put_scale<kBlock>(spec, r, static_cast<uint32_t>(k) / kBlock, scales[b]);
    }
  }
}

}  // namespace qstep::ops::device
