// FP8 with one scale for the tensor, or for each operand row, on a GPU: element by element, both
// orientations from one read.
//
// Bytes per element of a BF16 source: 2 read; 2 written where decoded values are wanted, 1 for the
// codes of each orientation, contiguous along k: those of the columnwise one are transposed in
// shared memory. (AmaxElements reads 2 more where the scale follows from this tensor.)
#pragma once

#include "ops/quantize/quantize_factors.h"
#include "ops/quantize/quantize_lines.h"
#include "ops/quantize/quantize_tile_source.h"
#include "ops/quantize/quantize_unit_counts.h"

namespace qstep::ops::device {

// The largest bits of a magnitude, NaN kept as the largest; those of numbers where it is one.
struct LargestBits {
  uint32_t with_nan = 0, numbers = 0;

  QSTEP_HD_INLINE void add(const Group& x) {
    uint32_t largest = 0;
    QSTEP_UNROLL(8)
    for (int i = 0; i < kGroup; ++i) {
      largest = precision::max_bits(largest, precision::bits(x.v[i]) & 0x7FFFFFFFu);
    }
    with_nan = precision::max_bits(with_nan, largest);
    if (largest > 0x7F800000u) {
      largest = 0;
      for (int i = 0; i < kGroup; ++i) {
        const uint32_t a = precision::bits(x.v[i]) & 0x7FFFFFFFu;
        largest = precision::max_bits(largest, a > 0x7F800000u ? 0 : a);
      }
    }
    numbers = precision::max_bits(numbers, largest);
  }
};

// Pass 1 of sides without a Hadamard transform and with one amax for the tensor.
struct AmaxElements {
  static constexpr int kThreads = 256, kBlocksPerSm = 4;
  static constexpr int kPerThread = 4;  // groups of kGroup elements, in flight together

  TileSource source;       // flattened
  uint32_t* amax[2] = {};  // bits; null: not wanted
  bool keeps_nan[2] = {};  // as the largest, or leaves it out
  int32_t* non_finite = nullptr;

  int64_t groups() const { return source.rows * n_groups(source.cols); }
  int64_t blocks() const {
    return (groups() + kThreads * kPerThread - 1) / (kThreads * kPerThread);
  }
  int shared_bytes() const { return 2 * static_cast<int>(sizeof(uint32_t)); }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    auto* const found = reinterpret_cast<uint32_t*>(shared);  // without and with NaN
    team.each(2, [&](int64_t i) { found[i] = 0; });
    team.sync();
    team.each(kThreads, [&](int64_t thread) {
      const LargestBits largest =
          source.bf16 ? largest_of<Bf16>(block, thread) : largest_of<float>(block, thread);
      raise_together(found, largest.numbers);
      raise_together(found + 1, largest.with_nan);
    });
    team.sync();
    team.each(2, [&](int64_t i) {
      if (amax[i] != nullptr) raise(amax[i], found[keeps_nan[i] ? 1 : 0]);
    });
    if (team.leader() && found[1] >= 0x7F800000u && non_finite != nullptr) *non_finite = 1;
  }

 private:
  template <class T>
  QSTEP_HD_INLINE LargestBits largest_of(int64_t block, int64_t thread) const {
    const T* const x = static_cast<const T*>(source.data);
    const int64_t across = n_groups(source.cols), first = block * kPerThread * kThreads;
    LargestBits largest;
    Group group[kPerThread];
    if (source.rows == 1 && source.aligned &&
        (first + kPerThread * kThreads) * kGroup <= source.cols) {
      QSTEP_UNROLL(4)
      for (int i = 0; i < kPerThread; ++i) {
        group[i] = load_whole(x + (first + i * kThreads + thread) * kGroup);
      }
    } else {
      QSTEP_UNROLL(4)
      for (int i = 0; i < kPerThread; ++i) {
        const int64_t g = first + i * kThreads + thread, row = source.rows == 1 ? 0 : g / across;
        group[i] = {};
        if (row >= source.rows || g - row * across >= across) continue;
        group[i] =
            load(Row<const T>{x + row * source.ld, source.cols, source.aligned}, g - row * across);
      }
    }
    QSTEP_UNROLL(4)
    for (int i = 0; i < kPerThread; ++i) largest.add(group[i]);
    return largest;
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

// out[i] is byte i of each of the four words of `in`.
QSTEP_HD_INLINE void transpose_bytes(const uint32_t (&in)[4], uint32_t (&out)[4]) {
  const uint32_t low[2] = {byte_permute(in[0], in[1], 0x5140), byte_permute(in[2], in[3], 0x5140)};
  const uint32_t high[2] = {byte_permute(in[0], in[1], 0x7362), byte_permute(in[2], in[3], 0x7362)};
  out[0] = byte_permute(low[0], low[1], 0x5410);
  out[1] = byte_permute(low[0], low[1], 0x7632);
  out[2] = byte_permute(high[0], high[1], 0x5410);
  out[3] = byte_permute(high[0], high[1], 0x7632);
}

inline constexpr int kElementTile = 128;

// Pass 2.
template <precision::ElementFormat kFormat, Leaves kLeaves>
struct QuantizeElements {
  static constexpr int kThreads = 256, kBlocksPerSm = 4;
  static constexpr int kTile = kElementTile;
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
  UnitCounts* counts = nullptr;  // one per thread block

  int64_t blocks() const { return n_tiles<kTile>(source.rows, source.cols); }
  // The amax, then the counts or the transposed codes.
  int shared_bytes() const {
    return 16 + (kLeaves == Leaves::kCounts ? kPatches * kCountBytes : kCodeBytes);
  }

  template <class Team>
  QSTEP_HD void operator()(const Team& team, char* shared, int64_t block) const {
    const TilePlace at = tile_place<kTile>(source.cols, block);
    auto* const found = reinterpret_cast<uint32_t*>(shared);
    auto* const words = reinterpret_cast<uint32_t*>(shared + 16);
    const ElementOutput* turned = nullptr;
    for (int o = 0; o < n_outputs; ++o) {
      if (outputs[o].transposed && outputs[o].codes != nullptr) turned = outputs + o;
    }
    team.each(1, [&](int64_t) { *found = 0; });
    team.sync();
    team.each(kPatches, [&](int64_t i) {
      const Patch patch = patch_of(at, static_cast<int>(i));
      if (patch.row >= source.rows || patch.col >= source.cols) {
        if constexpr (kLeaves == Leaves::kCounts) patch_counts(shared)[i] = {};
        return;
      }
      Group v[kDown];
      load_patch(patch, v);
      note(v, found);
      const Scales scales = scales_of(patch);
      if constexpr (kLeaves == Leaves::kValues) store_values(patch, v, scales);
      if constexpr (kLeaves == Leaves::kCodes)
        store_codes(patch, v, scales, turned == nullptr ? nullptr : words);
      if constexpr (kLeaves == Leaves::kCounts) patch_counts(shared)[i] = count(patch, v, scales);
    });
    team.sync();
    if constexpr (kLeaves == Leaves::kCodes) {
      if (turned != nullptr) {
        team.each(kTile * kVectors, [&](int64_t i) { store_turned(*turned, at, words, i); });
      }
    }
    team.each(1, [&](int64_t) {
      if (recorded_amax != nullptr) raise(recorded_amax, *found);
      if constexpr (kLeaves == Leaves::kCounts) {
        UnitCounts sum;
        for (int i = 0; i < kPatches; ++i) sum.add(patch_counts(shared)[i]);
        counts[block] = sum;
      }
    });
  }

 private:
  static constexpr int kCountBytes = static_cast<int>(sizeof(UnitCounts));
  // Codes of the tile, a row per column of the source, in words of four; a word apart, so that the
  // eight rows by four columns of patches that a warp writes at a time lie in 32 banks.
  static constexpr int kWords = kTile / 4, kWordStride = kWords + 1;
  static constexpr int kCodeBytes = (kTile * kWordStride * 4 + 15) / 16 * 16;

  // Where it begins, in the tile's patches and in the source, and the rows and columns that are
  // there.
  struct Patch {
    int down, across;
    int64_t row, col;
    int rows, cols;
  };
  // Neighbouring threads: eight patches down, four across, then the next such group.
  QSTEP_HD_INLINE Patch patch_of(const TilePlace& at, int i) const {
    const int down = i % 8 + i / 128 * 8, across = i / 8 % 16;
    const int64_t row = at.row + down * kDown, col = at.col + across * kAcross;
    const int64_t rows = source.rows - row, cols = source.cols - col;
    return {down,
            across,
            row,
            col,
            rows < kDown ? static_cast<int>(rows) : kDown,
            cols < kAcross ? static_cast<int>(cols) : kAcross};
  }

  // Zeros beyond the source.
  QSTEP_HD_INLINE void load_patch(const Patch& patch, Group (&v)[kDown]) const {
    if (source.bf16) {
      load_patch(static_cast<const Bf16*>(source.data), patch, v);
    } else {
      load_patch(static_cast<const float*>(source.data), patch, v);
    }
  }
  template <class T>
  QSTEP_HD_INLINE void load_patch(const T* data, const Patch& patch, Group (&v)[kDown]) const {
    const T* const x = data + patch.row * source.ld;
    if (source.aligned && patch.rows == kDown && patch.cols == kAcross) {  // in flight together
      QSTEP_UNROLL(4)
      for (int r = 0; r < kDown; ++r) v[r] = load_whole(x + r * source.ld + patch.col);
      return;
    }
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) {
      v[r] = {};
      if (r >= patch.rows) continue;
      v[r] = ops::device::load(Row<const T>{x + r * source.ld, source.cols, source.aligned},
                               patch.col / kAcross);
    }
  }

  QSTEP_HD_INLINE void note(const Group (&v)[kDown], uint32_t* found) const {
    LargestBits largest;
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) largest.add(v[r]);
    if (recorded_amax != nullptr) raise_in_block(found, largest.numbers);
    if (largest.with_nan >= 0x7F800000u && non_finite != nullptr) *non_finite = 1;
  }

  // What the elements of a patch are multiplied by.
  struct Scales {
    float row[kDown], col[kAcross];
    bool per_col;
    QSTEP_HD_INLINE float at(int r, int c) const { return per_col ? col[c] : row[r]; }
  };
  QSTEP_HD float scale_of(int64_t line) const {
    return fp8_element_scale(plan, precision::from_bits(amax[line]));
  }
  // The first patches of rows or columns write their tile_scales.
  QSTEP_HD_INLINE Scales scales_of(const Patch& patch) const {
    Scales scales{.row = {}, .col = {}, .per_col = per_col};
    if (per_col) {
      QSTEP_UNROLL(8)
      for (int c = 0; c < kAcross; ++c) {
        scales.col[c] = c < patch.cols ? scale_of(patch.col + c) : 1.0f;
        if (patch.row == 0 && c < patch.cols) {
          tile_scales[(patch.col + c) * tile_scales_ld] = 1.0f / scales.col[c];
        }
      }
      return scales;
    }
    const float of_tensor = per_row ? 1.0f : factors->scale;
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) {
      scales.row[r] = per_row && r < patch.rows ? scale_of(patch.row + r) : of_tensor;
      if (per_row && patch.col == 0 && r < patch.rows) {
        tile_scales[(patch.row + r) * tile_scales_ld] = 1.0f / scales.row[r];
      }
    }
    return scales;
  }

  QSTEP_HD_INLINE static Group rounded(const Group& v, const Scales& scales, int r) {
    Group q;
    QSTEP_UNROLL(8)
    for (int c = 0; c < kAcross; ++c) {
      q.v[c] = precision::round_nearest<kFormat>(v.v[c] * scales.at(r, c));
    }
    return q;
  }

  QSTEP_HD_INLINE void store_values(const Patch& patch, const Group (&v)[kDown],
                                    const Scales& scales) const {
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) {
      if (r >= patch.rows) continue;
      const Group q = rounded(v[r], scales, r);
      for (int o = 0; o < n_outputs; ++o) {
        const ElementOutput& to = outputs[o];
        if (to.values == nullptr) continue;
        store_unit<kAcross>(to.values + (patch.row + r) * to.values_ld + patch.col, 1, patch.cols,
                            q.v);
      }
    }
  }

  QSTEP_HD_INLINE void store_codes(const Patch& patch, const Group (&v)[kDown],
                                   const Scales& scales, uint32_t* words) const {
    uint32_t codes[2][kDown];  // four columns, rows
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) {
      QSTEP_UNROLL(2)
      for (int half = 0; half < 2; ++half) {
        uint32_t word = 0;
        QSTEP_UNROLL(2)
        for (int c = 0; c < 4; c += 2) {
          const int at = 4 * half + c;
          word |= precision::encode_nearest<kFormat>(v[r].v[at] * scales.at(r, at),
                                                     v[r].v[at + 1] * scales.at(r, at + 1))
                  << (8 * c);
        }
        codes[half][r] = word;
      }
    }
    for (int o = 0; o < n_outputs; ++o) {
      const ElementOutput& to = outputs[o];
      if (to.transposed || to.codes == nullptr) continue;
      QSTEP_UNROLL(4)
      for (int r = 0; r < kDown; ++r) {
        if (r >= patch.rows) continue;
        uint8_t* const bytes = to.codes + (patch.row + r) * to.codes_ld + patch.col;
        if (patch.cols == kAcross) {  // aligned: the column is a multiple of eight
          *reinterpret_cast<TwoWords*>(bytes) = {{codes[0][r], codes[1][r]}};
          continue;
        }
        for (int c = 0; c < patch.cols; ++c) {
          bytes[c] = static_cast<uint8_t>((c < 4 ? codes[0][r] : codes[1][r]) >> (8 * (c % 4)));
        }
      }
    }
    if (words == nullptr) return;
    QSTEP_UNROLL(2)
    for (int half = 0; half < 2; ++half) {
      uint32_t columns[4];
      transpose_bytes(codes[half], columns);
      QSTEP_UNROLL(4)
      for (int c = 0; c < 4; ++c) {
        words[(patch.across * kAcross + 4 * half + c) * kWordStride + patch.down] = columns[c];
      }
    }
  }

  // Sixteen codes of one row of the transposed operand: neighbouring threads write side by side.
  static constexpr int kVectors = kTile / 16;
  QSTEP_HD_INLINE void store_turned(const ElementOutput& to, const TilePlace& at,
                                    const uint32_t* words, int64_t i) const {
    const int r = static_cast<int>(i) / kVectors, first = static_cast<int>(i) % kVectors * 16;
    const int64_t k = at.row + first, left = source.rows - k;
    if (at.col + r >= source.cols || left <= 0) return;
    Words codes;
    QSTEP_UNROLL(4)
    for (int j = 0; j < 4; ++j) codes.w[j] = words[r * kWordStride + first / 4 + j];
    uint8_t* const bytes = to.codes + (at.col + r) * to.codes_ld + k;
    if (left >= 16) {
      *reinterpret_cast<Words*>(bytes) = codes;
      return;
    }
    QSTEP_UNROLL(16)
    for (int j = 0; j < 16; ++j) {
      if (j < left) bytes[j] = static_cast<uint8_t>(codes.w[j / 4] >> (8 * (j % 4)));
    }
  }

  QSTEP_HD static UnitCounts* patch_counts(char* shared) {
    return reinterpret_cast<UnitCounts*>(shared + 16);
  }
  QSTEP_HD UnitCounts count(const Patch& patch, const Group (&v)[kDown],
                            const Scales& scales) const {
    UnitCounts counts_of_patch;
    QSTEP_UNROLL(4)
    for (int r = 0; r < kDown; ++r) {
      if (r >= patch.rows) continue;
      const Group q = rounded(v[r], scales, r);
      counts_of_patch.source(v[r].v, kAcross);  // zeros beyond the row
      QSTEP_UNROLL(8)
      for (int c = 0; c < kAcross; ++c) {
        const float scale = scales.at(r, c);
        if (c >= patch.cols) continue;
        counts_of_patch.quantized(v[r].v + c, q.v + c, 1, scale, 1.0f / scale, saturation);
      }
      counts_of_patch.elements += patch.cols;
    }
    return counts_of_patch;
  }
};

}  // namespace qstep::ops::device
