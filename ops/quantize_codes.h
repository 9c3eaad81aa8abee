// Codes and block scales of a native operand (ops/native_form.h), as the threads of a quantizer
// leave them. Where k runs along the rows of the source a thread has the codes of a unit side by
// side and writes them out; where it runs down the rows, which is another unit's direction or the
// thread's own, the codes of a tile pass through shared memory, so that what is written lies side
// by side.
#pragma once

#include "ops/quantize_lines.h"
#include "ops/quantize_tile_source.h"

namespace qstep::ops::device {

struct CodeOutput {
  NativeForm form = {};
  bool down = false;             // the operand's rows are the source's columns
  uint8_t* codes = nullptr;      // [rows, ld]; null: not wanted
  void* block_scales = nullptr;  // null: none of blocks
  int64_t rows = 0, k = 0;       // of the operand
  int64_t ld = 0;                // bytes, a multiple of 16, as the address is

  QSTEP_HD bool four_bits() const { return form.element == precision::ElementFormat::kE2m1; }
  QSTEP_HD void put_scale(const precision::QuantSpec& spec, int64_t r, int64_t c,
                          float scale) const {
    const int64_t at = block_scale_offset(form.scales, r, c, rows, k);
    if (scales_are_bytes(form.scales)) {
      static_cast<uint8_t*>(block_scales)[at] = encode_block_scale(spec.format, scale);
    } else {
      static_cast<float*>(block_scales)[at] = scale;
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

// The codes of the first n of a unit's elements, in words: eight of E2M1, four of the others; zero
// beyond n.
template <precision::ElementFormat kFormat, int kUnit>
struct CodeWords {
  static constexpr int kPerWord = kFormat == precision::ElementFormat::kE2m1 ? 8 : 4;
  static constexpr int kBits = 32 / kPerWord;

  QSTEP_HD_INLINE static uint32_t word(const float* rounded, int64_t n, int index) {
    uint32_t word = 0;
    QSTEP_UNROLL(8)
    for (int i = 0; i < kPerWord; ++i) {
      const int at = index * kPerWord + i;
      const uint32_t code = at < n ? precision::encode<kFormat>(rounded[at]) : 0u;
      word |= code << (kBits * i);
    }
    return word;
  }
};

// Units are 8 bytes or multiples of 16; what lies beyond the row's bytes is not written.
struct alignas(8) [[gnu::may_alias]] TwoWords {
  uint32_t w[2];
};
template <precision::ElementFormat kFormat, int kUnit>
QSTEP_HD_INLINE void store_code_words(uint8_t* row, int64_t row_bytes, int64_t first,
                                      const float* rounded, int64_t n) {
  using Codes = CodeWords<kFormat, kUnit>;
  constexpr int kBytes = kUnit / Codes::kPerWord * 4;
  int64_t at = first / Codes::kPerWord * 4;
  if constexpr (kBytes % 16 == 0) {
    QSTEP_UNROLL_DEVICE(kUnit)
    for (int v = 0; v < kBytes / 16; ++v, at += 16) {
      Words words;
      QSTEP_UNROLL(4)
      for (int i = 0; i < 4; ++i) words.w[i] = Codes::word(rounded, n, 4 * v + i);
      if (at < row_bytes) *reinterpret_cast<Words*>(row + at) = words;
    }
  } else {
    const TwoWords words{{Codes::word(rounded, n, 0), Codes::word(rounded, n, 1)}};
    if (at < row_bytes) *reinterpret_cast<TwoWords*>(row + at) = words;
  }
}

// f(std::integral_constant) with the element: units of 16 are nvfp4's.
template <int kUnit, class F>
QSTEP_HD_INLINE void dispatch_element(precision::ElementFormat element, F&& f) {
  using precision::ElementFormat;
  if constexpr (kUnit > 16) {
    if (element == ElementFormat::kE4m3) {
      return f(std::integral_constant<ElementFormat, ElementFormat::kE4m3>{});
    }
    if (element == ElementFormat::kE5m2) {
      return f(std::integral_constant<ElementFormat, ElementFormat::kE5m2>{});
    }
  }
  f(std::integral_constant<ElementFormat, ElementFormat::kE2m1>{});
}

// Of an output whose k runs along the rows: the unit from element `first` of row `row` on, of which
// n are in the tensor.
template <int kUnit>
QSTEP_HD_INLINE void store_codes(const CodeOutput& to, int64_t row, int64_t first,
                                 const float* rounded, int64_t n) {
  dispatch_element<kUnit>(to.form.element, [&](auto element) {
    store_code_words<element, kUnit>(to.codes + row * to.ld, to.ld, first, rounded, n);
  });
}

// The codes of a tile, a byte each, the operand's rows apart by a word more than they are long.
template <int kTile>
struct StagedCodes {
  static constexpr int kStride = kTile + 4;
  static constexpr int kBytes = kTile * kStride;

  uint8_t* bytes;

  // A unit of the tile at (row, col) of the source; turned: along the source's row.
  template <int kUnit>
  QSTEP_HD_INLINE void put(const CodeOutput& to, bool turned, int row, int col,
                           const float* rounded) const {
    uint8_t* const at = bytes + col * kStride + row;
    dispatch_element<kUnit>(to.form.element, [&](auto element) {
      QSTEP_UNROLL_DEVICE(kUnit)
      for (int i = 0; i < kUnit; ++i) {
        at[turned ? i * kStride : i] = precision::encode<element>(rounded[i]);
      }
    });
  }

  // Sixteen bytes of a row of codes; neighbouring threads write side by side. Element k of the
  // operand is row k of the source: there are `k` of them.
  QSTEP_HD static int vectors(const CodeOutput& to) {
    return kTile * (kTile / (to.four_bits() ? 32 : 16));
  }
  QSTEP_HD_INLINE void store(const CodeOutput& to, const TilePlace& at, int64_t i) const {
    const int per_byte = to.four_bits() ? 2 : 1, per_row = kTile / (16 * per_byte);
    const int row = static_cast<int>(i) / per_row, first = static_cast<int>(i) % per_row * 16;
    const int64_t byte = at.row / per_byte + first;
    if (at.col + row >= to.rows || byte >= to.ld) return;
    const uint8_t* const codes = bytes + row * kStride + first * per_byte;
    const int64_t left = to.k - at.row - first * per_byte;
    Words words{};
    QSTEP_UNROLL(16)
    for (int b = 0; b < 16; ++b) {
      uint32_t code = 0;
      if (per_byte == 2) {
        if (2 * b < left) code = codes[2 * b];
        if (2 * b + 1 < left) code |= static_cast<uint32_t>(codes[2 * b + 1]) << 4;
      } else if (b < left) {
        code = codes[b];
      }
      words.w[b / 4] |= code << (8 * (b % 4));
    }
    *reinterpret_cast<Words*>(to.codes + (at.col + row) * to.ld + byte) = words;
  }
};

// The scales of a unit's blocks. A square block has its scale from the first of its lines, once for
// every row of the operand that it covers.
template <int kUnit>
QSTEP_HD_INLINE void store_block_scales(const CodeOutput& to, const precision::QuantSpec& spec,
                                        bool turned, int64_t line, int64_t first, int64_t n,
                                        const float* scales) {
  if (to.block_scales == nullptr) return;
  const int64_t height = spec.block.rows, width = spec.block.k;
  if (line % height != 0) return;
  QSTEP_UNROLL_DEVICE(kUnit)
  for (int b = 0; b < kUnit / 16; ++b) {
    if (b * width >= n) continue;
    const auto [row, k] = operand_index(turned, line, first + b * width);
    const int64_t covered = to.form.scales == ScaleMode::kBlock128 ? 1 : height;
    for (int64_t r = row; r < row + covered && r < to.rows; ++r) {
      to.put_scale(spec, r, k / width, scales[b]);
    }
  }
}

}  // namespace qstep::ops::device
