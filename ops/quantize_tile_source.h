// A square part of a quantizer's source in the shared memory of a GPU's thread block: read once,
// sixteen bytes at a time, and handed out in units along its rows or down its columns.
//
// Rows lie sixteen bytes further apart than they are long: the 16-byte accesses of eight threads,
// wherever units of 16 to 128 BF16 elements begin, then meet eight different groups of banks.
#pragma once

#include "ops/group.h"

namespace qstep::ops::device {

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

// Eight elements of a row, from column 8 group on; zeros beyond the source.
QSTEP_HD_INLINE Group load_group(const TileSource& source, int64_t row, int64_t group) {
  const int64_t at = row * source.ld;
  if (source.bf16) {
    return load(
        Row<const Bf16>{static_cast<const Bf16*>(source.data) + at, source.cols, source.aligned},
        group);
  }
  return load(
      Row<const float>{static_cast<const float*>(source.data) + at, source.cols, source.aligned},
      group);
}

// Where a tile begins in the source.
struct TilePlace {
  int64_t row = 0, col = 0;
};
template <int kTile>
QSTEP_HD inline TilePlace tile_place(int64_t cols, int64_t block) {
  const int64_t across = (cols + kTile - 1) / kTile;
  return {block / across * kTile, block % across * kTile};
}
template <int kTile>
constexpr int64_t n_tiles(int64_t rows, int64_t cols) {
  return ((rows + kTile - 1) / kTile) * ((cols + kTile - 1) / kTile);
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
    team.each(kTile * kAcross, [&](int64_t i) {
      const int64_t r = i / kAcross, c = i % kAcross * kVector;
      const int64_t row = at.row + r, col = at.col + c;
      const T* const x = from + row * source.ld + col;
      T* const y = to + r * kStride + c;
      if (source.aligned && row < source.rows && col + kVector <= source.cols) {
        *reinterpret_cast<Words*>(y) = *reinterpret_cast<const Words*>(x);
        return;
      }
      for (int j = 0; j < kVector; ++j) {
        y[j] = row < source.rows && col + j < source.cols ? x[j] : T{};
      }
    });
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

// Each raises *to, one of many threads' doing it: for the bits of magnitudes, whose order is that
// of integers. Of the tensor, where most find that it is large enough:
QSTEP_HD inline void raise(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  if (value > *static_cast<volatile uint32_t*>(to)) atomicMax(to, value);
#else
  if (value > *to) *to = value;
#endif
}
// Of the thread block, each thread with a place that few others have:
QSTEP_HD inline void raise_in_block(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  atomicMax(to, value);
#else
  raise(to, value);
#endif
}
// Of the thread block, all threads of a warp together with one place:
QSTEP_HD inline void raise_together(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  const uint32_t largest = __reduce_max_sync(~0u, value);
  if (threadIdx.x % kWarp == 0) atomicMax(to, largest);
#else
  raise(to, value);
#endif
}

}  // namespace qstep::ops::device
