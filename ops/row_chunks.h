// Sums over tokens for a weight's gradient, the same bits for any number of threads: fixed chunks
// of rows are summed one row after the other into FP32 partial sums, which are then added in the
// order of the chunks.
#pragma once

#include <cstdint>

#include "ops/ops.h"
#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

inline constexpr int64_t kRowsPerChunk = 32;

inline int64_t n_row_chunks(int64_t rows) { return (rows + kRowsPerChunk - 1) / kRowsPerChunk; }

// Elements from one chunk's partial sums of n columns to the next: whole cache lines.
inline int64_t partial_stride(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// f(chunk, first, last) for rows [first, last) of every chunk, in parallel.
template <class F>
inline void for_each_row_chunk(int64_t rows, F&& f) {
  parallel_for(n_row_chunks(rows), [&](int64_t chunk) {
    const int64_t first = chunk * kRowsPerChunk;
    f(chunk, first, std::min(first + kRowsPerChunk, rows));
  });
}

// out[c] (+)= ((partial[0][c] + partial[1][c]) + partial[2][c]) + ..., rows `stride` apart.
inline void add_partials(float* out, const float* partial, int64_t n_chunks, int64_t n,
                         int64_t stride, Accumulate accumulate) {
  constexpr int64_t kColumns = 4 * kLanes;
  parallel_blocks(n, kColumns, [&](int64_t first, int64_t n_columns) {
    for_each_group(n_columns, [&](int64_t i, int64_t lanes) {
      const int64_t c = first + i;
      F32x16 sum = broadcast(0.0f);
      for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
        sum = sum + load_n(partial + chunk * stride + c, lanes);
      }
      if (accumulate == Accumulate::kYes) sum = load_n(out + c, lanes) + sum;
      store_n(out + c, sum, lanes);
    });
  });
}

}  // namespace qstep::ops::cpu
