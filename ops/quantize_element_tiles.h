// FP8 with one scale for the tensor, or for each operand row, on a GPU: element by element, both
// orientations from one read.
//
// Bytes per element of a BF16 source: 2 read; 2 written where decoded values are wanted, 1 for the
// codes of each orientation, contiguous along k: those of the columnwise one are transposed in
// shared memory. (AmaxElements reads 2 more where the scale follows from this tensor.)
#pragma once

#include "ops/quantize_factors.h"
#include "ops/quantize_lines.h"
#include "ops/quantize_tile_source.h"
#include "ops/quantize_unit_counts.h"

namespace qstep::ops::device {

// Pass 1 of sides without a Hadamard transform and with one amax for the tensor.
struct AmaxElements {
  static constexpr int kThreads = 256;
  static constexpr int64_t kPerThread = 4;  // groups of kGroup elements

  TileSource source;
  uint32_t* amax[2] = {};  // bits; null: not wanted
  bool keeps_nan[2] = {};  // as the largest, or leaves it out
  int32_t* non_finite = nullptr;

  int64_t blocks() const {
    const int64_t groups = source.rows * ((source.cols + kGroup - 1) / kGroup);
    return (groups + kThreads * kPerThread - 1) / (kThreads * kPerThread);
  }
  int shared_bytes() const { return 2 * static_cast<int>(sizeof(uint32_t)); }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    auto* const found = reinterpret_cast<uint32_t*>(shared);  // without and with NaN
    team.each(2, [&](int64_t i) { found[i] = 0; });
    team.sync();
    team.each(kThreads, [&](int64_t thread) {
      uint32_t largest = 0, with_nan = 0;
      QSTEP_UNROLL(4)
      for (int64_t i = 0; i < kPerThread; ++i) {
        add_group((block * kPerThread + i) * kThreads + thread, largest, with_nan);
      }
      raise_together(found, largest);
      raise_together(found + 1, with_nan);
    });
    team.sync();
    team.each(2, [&](int64_t i) {
      if (amax[i] != nullptr) raise(amax[i], found[keeps_nan[i] ? 1 : 0]);
    });
    if (team.leader() && found[1] >= 0x7F800000u && non_finite != nullptr) *non_finite = 1;
  }

 private:
  QSTEP_HD_INLINE void add_group(int64_t group, uint32_t& largest, uint32_t& with_nan) const {
    const int64_t across = (source.cols + kGroup - 1) / kGroup;
    const int64_t row = group / across;
    if (row >= source.rows) return;
    const Group v = load_group(source, row, group % across);
    QSTEP_UNROLL(8)
    for (int i = 0; i < kGroup; ++i) {
      const uint32_t a = precision::bits(v.v[i]) & 0x7FFFFFFFu;
      with_nan = precision::max_bits(with_nan, a);
      largest = precision::max_bits(largest, a > 0x7F800000u ? 0 : a);
    }
  }
};

// One orientation of the codes, or values in the layout of the source.
struct ElementOutput {
  bool transposed = false;  // the operand's rows are the source's columns
  Bf16* values = nullptr;   // null: not wanted
  int64_t values_ld = 0;
  uint8_t* codes = nullptr;  // [operand rows, k]; null: not wanted
  int64_t codes_ld = 0;      // a multiple of 16, as the address is
};

// Pass 2.
struct QuantizeElements {
  static constexpr int kThreads = 256;
  static constexpr int kTile = 128;
  // A thread takes patches of four rows by eight columns: eight codes side by side for one
  // orientation, four for the other.
  static constexpr int kDown = 4, kAcross = kGroup;
  static constexpr int kPatches = kTile / kDown * (kTile / kAcross);

  TileSource source = {};
  precision::UnitPlan plan = {};
  bool per_row = false, per_col = false;  // AmaxScope::kRow: `amax` is of each row or column
  const uint32_t* amax = nullptr;         // bits
  const TensorFactors* factors = nullptr;
  float* tile_scales = nullptr;  // AmaxScope::kRow
  int64_t tile_scales_ld = 0;
  int n_outputs = 0;
  ElementOutput outputs[2] = {};
  uint32_t* recorded_amax = nullptr;  // delayed: bits of the amax to raise
  int32_t* non_finite = nullptr;
  float saturation = 0;
  UnitCounts* counts = nullptr;  // one per thread block; null: not counted

  int64_t blocks() const { return n_tiles<kTile>(source.rows, source.cols); }
  // Transposed codes and the amax, or the counts.
  int shared_bytes() const {
    return kCodeBytes + 16 + (counts == nullptr ? 0 : kPatches * kCountBytes);
  }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    const TilePlace at = tile_place<kTile>(source.cols, block);
    auto* const words = reinterpret_cast<uint32_t*>(shared);
    auto* const found = reinterpret_cast<uint32_t*>(shared + kCodeBytes);
    auto* const own_counts = reinterpret_cast<UnitCounts*>(shared + kCodeBytes + 16);
    const ElementOutput* turned = nullptr;
    for (int o = 0; o < n_outputs; ++o) {
      if (outputs[o].transposed && outputs[o].codes != nullptr) turned = outputs + o;
    }
    team.each(1, [&](int64_t) { *found = 0; });
    team.sync();
    team.each(kPatches, [&](int64_t patch) {
      UnitCounts own;
      quantize_patch(at, static_cast<int>(patch), turned == nullptr ? nullptr : words, found, own);
      if (counts != nullptr) own_counts[patch] = own;
    });
    team.sync();
    if (turned != nullptr) {
      team.each(kTile * kWords, [&](int64_t i) { store_turned(*turned, at, words, i); });
    }
    team.each(1, [&](int64_t) {
      if (recorded_amax != nullptr) raise(recorded_amax, *found);
      if (counts == nullptr) return;
      UnitCounts sum;
      for (int i = 0; i < kPatches; ++i) sum.add(own_counts[i]);
      counts[block] = sum;
    });
  }

 private:
  static constexpr int kCountBytes = static_cast<int>(sizeof(UnitCounts));
  // Codes of the tile, a row per column of the source, in words of four; a word apart, so that the
  // eight rows by four columns of patches that a warp writes at a time lie in 32 banks.
  static constexpr int kWords = kTile / 4, kWordStride = kWords + 1;
  static constexpr int kCodeBytes = (kTile * kWordStride * 4 + 15) / 16 * 16;

  QSTEP_HD float scale_of(int64_t line) const {
    return fp8_element_scale(plan, precision::from_bits(amax[line]));
  }

  QSTEP_HD_INLINE void quantize_patch(const TilePlace& at, int patch, uint32_t* words,
                                      uint32_t* found, UnitCounts& own) const {
    // Neighbouring threads: eight patches down, four across, then the next such group.
    const int down = patch % 8 + patch / 128 * 8, across = patch / 8 % 16;
    const int64_t row = at.row + down * kDown, col = at.col + across * kAcross;
    const bool e4m3 = plan.spec.format == precision::QuantFormat::kFp8E4m3;
    uint32_t codes[kDown][2] = {};
    uint32_t largest = 0, with_nan = 0;
    float column_scale[kAcross];
    QSTEP_UNROLL(8)
    for (int j = 0; j < kAcross; ++j) {
      column_scale[j] = per_col && col + j < source.cols ? scale_of(col + j) : 1.0f;
      if (per_col && row == 0 && col + j < source.cols) {
        tile_scales[(col + j) * tile_scales_ld] = 1.0f / column_scale[j];
      }
    }
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) {
      if (row + r >= source.rows || col >= source.cols) continue;
      float row_scale = 1.0f;
      if (per_row) {
        row_scale = scale_of(row + r);
        if (col == 0) tile_scales[(row + r) * tile_scales_ld] = 1.0f / row_scale;
      } else if (!per_col) {
        row_scale = factors->scale;
      }
      const int64_t left = source.cols - col;
      const int n = left < kAcross ? static_cast<int>(left) : kAcross;
      float q[kAcross];
      const auto [v] = load_group(source, row + r, col / kAcross);
      QSTEP_UNROLL(8)
      for (int j = 0; j < kAcross; ++j) {
        const uint32_t a = precision::bits(v[j]) & 0x7FFFFFFFu;
        with_nan = precision::max_bits(with_nan, a);
        largest = precision::max_bits(largest, a > 0x7F800000u ? 0 : a);
        const float scale = per_col ? column_scale[j] : row_scale;
        q[j] = e4m3 ? precision::round_nearest<precision::ElementFormat::kE4m3>(v[j] * scale)
                    : precision::round_nearest<precision::ElementFormat::kE5m2>(v[j] * scale);
        const uint32_t code = e4m3 ? precision::encode<precision::ElementFormat::kE4m3>(q[j])
                                   : precision::encode<precision::ElementFormat::kE5m2>(q[j]);
        codes[r][j / 4] |= code << (8 * (j % 4));
      }
      for (int o = 0; o < n_outputs; ++o) store_row(outputs[o], row + r, col, n, q, codes[r]);
      if (counts != nullptr) {
        own.source(v, kAcross);  // zeros beyond the row
        QSTEP_UNROLL(8)
        for (int j = 0; j < kAcross; ++j) {
          const float scale = per_col ? column_scale[j] : row_scale;
          if (j < n) own.quantized(v + j, q + j, 1, scale, 1.0f / scale, saturation);
        }
        own.elements += n;
      }
    }
    if (recorded_amax != nullptr) raise_together(found, largest);
    if (with_nan >= 0x7F800000u && non_finite != nullptr) *non_finite = 1;
    if (words == nullptr) return;
    QSTEP_UNROLL(8)
    for (int j = 0; j < kAcross; ++j) {
      uint32_t word = 0;
      QSTEP_UNROLL(4)
      for (int r = 0; r < kDown; ++r) word |= (codes[r][j / 4] >> (8 * (j % 4)) & 0xFFu) << (8 * r);
      words[(across * kAcross + j) * kWordStride + down] = word;
    }
  }

  QSTEP_HD_INLINE static void store_row(const ElementOutput& to, int64_t row, int64_t col, int n,
                                        const float* q, const uint32_t* codes) {
    if (to.values != nullptr) {
      store_unit<kAcross>(to.values + row * to.values_ld + col, 1, n, q);
    }
    if (to.transposed || to.codes == nullptr) return;
    uint8_t* const bytes = to.codes + row * to.codes_ld + col;
    if (n == kAcross) {  // aligned: col is a multiple of eight
      reinterpret_cast<uint32_t*>(bytes)[0] = codes[0];
      reinterpret_cast<uint32_t*>(bytes)[1] = codes[1];
      return;
    }
    QSTEP_UNROLL(8)
    for (int j = 0; j < kAcross; ++j) {
      if (j < n) bytes[j] = static_cast<uint8_t>(codes[j / 4] >> (8 * (j % 4)));
    }
  }

  // Four codes of one row of the transposed operand: neighbouring threads write side by side.
  QSTEP_HD_INLINE void store_turned(const ElementOutput& to, const TilePlace& at,
                                    const uint32_t* words, int64_t i) const {
    const int64_t r = i / kWords, k = i % kWords * 4;
    if (at.col + r >= source.cols || at.row + k >= source.rows) return;
    const uint32_t word = words[r * kWordStride + i % kWords];
    uint8_t* const bytes = to.codes + (at.col + r) * to.codes_ld + at.row + k;
    if (at.row + k + 4 <= source.rows) {
      *reinterpret_cast<uint32_t*>(bytes) = word;
      return;
    }
    for (int j = 0; at.row + k + j < source.rows; ++j) {
      bytes[j] = static_cast<uint8_t>(word >> (8 * j));
    }
  }
};

}  // namespace qstep::ops::device
