// A square part of a quantizer's source in the shared memory of a GPU's thread block: read once,
// sixteen bytes at a time and all of them in flight together, and handed out in units along its
// rows or down its columns.
//
// Rows lie sixteen bytes further apart than they are long: the 16-byte accesses of eight threads,
// wherever units of 16 to 128 BF16 elements begin, then meet eight different groups of banks.
#pragma once

#include <cstring>

#include "ops/group.h"
#include "ops/raise.h"

namespace qstep::ops::device {

// What a pass leaves: decoded values, codes with their block scales, or counts for the ledger. A
// side that wants two of them goes through two passes.
enum class Leaves : uint8_t { kValues, kCodes, kCounts };

// What is read: BF16 or FP32, plain data.
struct TileSource {
  const void* data = nullptr;
  bool bf16 = true;
  bool aligned = false;  // rows begin at multiples of sixteen bytes
  int64_t rows = 0, cols = 0, ld = 0;
};
inline TileSource tile_source(const Tensor& x) {
  const bool aligned =
      reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.ld * size_bytes(x.dtype) % 16 == 0;
  return {.data = x.data,
          .bf16 = x.dtype == Dtype::kBf16,
          .aligned = aligned,
          .rows = x.rows,
          .cols = x.cols,
          .ld = x.ld};
}

// As one row, where rows follow each other without a gap.
inline TileSource flattened(const TileSource& x) {
  if (x.ld != x.cols) return x;
  TileSource row = x;
  row.rows = x.rows > 0 ? 1 : 0;
  row.cols = row.ld = x.rows * x.cols;
  return row;
}

// Where a tile begins in the source.
struct TilePlace {
  int64_t row = 0, col = 0;
};
template <int kTile>
QSTEP_HD inline TilePlace tile_place(int64_t cols, int64_t block) {
  // 32 bits: a launch has less than 2^31 thread blocks, and long divisions take a hundred
  // instructions.
  const auto across = static_cast<uint32_t>((cols + kTile - 1) / kTile);
  const auto i = static_cast<uint32_t>(block);
  return {int64_t{i / across} * kTile, int64_t{i % across} * kTile};
}
template <int kTile>
constexpr int64_t n_tiles(int64_t rows, int64_t cols) {
  return ((rows + kTile - 1) / kTile) * ((cols + kTile - 1) / kTile);
}

// The first n of sixteen bytes to shared memory, zeros behind them, past the registers: the thread
// goes on, and has them behind wait_for_copies.
QSTEP_HD_INLINE void copy_async(void* shared, const void* from, int n) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(from), "r"(n)
               : "memory");
#else
  std::memset(shared, 0, sizeof(Words));
  std::memcpy(shared, from, static_cast<size_t>(n));
#endif
}
QSTEP_HD_INLINE void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" : : : "memory");
#endif
}

// kTile x kTile elements of type T in shared memory; zeros beyond the source.
template <int kTile, class T>
struct SharedTile {
  static constexpr int kStride = kTile + 16 / static_cast<int>(sizeof(T));
  static constexpr int kVector = 16 / static_cast<int>(sizeof(T));
  static constexpr int kBytes = kTile * kStride * static_cast<int>(sizeof(T));

  T* data;

  template <class Team>
  QSTEP_HD void load(const Team& team, const TileSource& source, const TilePlace& at) const {
    constexpr int kAcross = kTile / kVector;
    const T* const from = static_cast<const T*>(source.data);
    T* const to = data;
    const bool whole = at.row + kTile <= source.rows && at.col + kTile <= source.cols;
    team.each(kTile * kAcross, [&](int64_t i) {
      const int r = static_cast<int>(i) / kAcross, c = static_cast<int>(i) % kAcross * kVector;
      const int64_t row = at.row + r, col = at.col + c;
      const T* const x = from + row * source.ld + col;
      T* const y = to + r * kStride + c;
      if (source.aligned && whole) return copy_async(y, x, sizeof(Words));
      const int64_t left = row < source.rows ? source.cols - col : 0;
      const int n = left < 0 ? 0 : left < kVector ? static_cast<int>(left) : kVector;
      if (source.aligned) {
        return copy_async(y, n > 0 ? x : from, n * static_cast<int>(sizeof(T)));
      }
      for (int j = 0; j < kVector; ++j) y[j] = j < n ? x[j] : T{};
    });
    wait_for_copies();
  }

  // v[0, kUnit) from (row, col) on: along the row or down the column.
  template <int kUnit>
  QSTEP_HD_INLINE void unit(int row, int col, bool along_row, float* v) const {
    const T* const x = data + row * kStride + col;
    if (!along_row) {
      QSTEP_UNROLL_DEVICE(kUnit)
      for (int i = 0; i < kUnit; ++i) v[i] = precision::to_float(x[i * kStride]);
      return;
    }
    QSTEP_UNROLL_DEVICE(kUnit)
    for (int i = 0; i < kUnit; i += kGroup) {
      const Group group = load_whole(x + i);
      QSTEP_UNROLL(8)
      for (int j = 0; j < kGroup; ++j) v[i + j] = group.v[j];
    }
  }
};

// f(SharedTile) of the source's type, in this shared memory.
template <int kTile, class F>
QSTEP_HD_INLINE void with_tile(const TileSource& source, char* shared, F&& f) {
  if (source.bf16) {
    f(SharedTile<kTile, Bf16>{reinterpret_cast<Bf16*>(shared)});
  } else {
    f(SharedTile<kTile, float>{reinterpret_cast<float*>(shared)});
  }
}
template <int kTile>
QSTEP_HD constexpr int tile_bytes(bool bf16) {
  return bf16 ? SharedTile<kTile, Bf16>::kBytes : SharedTile<kTile, float>::kBytes;
}

// The first n numbers of a unit, in BF16: by sixteen bytes where they lie side by side and whole.
template <int kUnit>
QSTEP_HD_INLINE void store_unit(Bf16* to, int64_t stride, int64_t n, const float* v) {
  if (stride == 1 && n == kUnit && reinterpret_cast<uintptr_t>(to) % sizeof(Words) == 0) {
    QSTEP_UNROLL_DEVICE(kUnit)
    for (int i = 0; i < kUnit; i += kGroup) {
      Group group;
      QSTEP_UNROLL(8)
      for (int j = 0; j < kGroup; ++j) group.v[j] = v[i + j];
      store_whole(to + i, group);
    }
    return;
  }
  QSTEP_UNROLL_DEVICE(kUnit)
  for (int i = 0; i < kUnit; ++i) {
    if (i < n) to[i * stride] = precision::to_bf16(v[i]);
  }
}

// Adds bits that are zero in *to, one of many threads' doing it.
QSTEP_HD inline void add_bits(uint32_t* to, uint32_t bits) {
#if defined(__CUDA_ARCH__)
  atomicOr(to, bits);
#else
  *to |= bits;
#endif
}

// Eight bytes at once.
struct alignas(8) [[gnu::may_alias]] TwoWords {
  uint32_t w[2];
};

// Four bytes of (high, low), chosen by the digits of `selector`, which number them from the lowest.
QSTEP_HD inline uint32_t byte_permute(uint32_t low, uint32_t high, uint32_t selector) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(low, high, selector);
#else
  const uint64_t both = uint64_t{high} << 32 | low;
  uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    r |= static_cast<uint32_t>(both >> (8 * (selector >> (4 * i) & 7u)) & 0xFFu) << (8 * i);
  }
  return r;
#endif
}

}  // namespace qstep::ops::device
