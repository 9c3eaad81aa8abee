#include "ops/quantize/quantize_grid.h"

#include <algorithm>

namespace qstep::ops::cpu {

ChunkGrid::ChunkGrid(std::span<const Side> sides, int64_t rows, int64_t cols,
                     const LogicalPlace& place)
    : down_(rows, chunk_rows(sides), place.split == SplitDim::kRows ? &place : nullptr),
      across_(cols, kMaxChunkCols, place.split == SplitDim::kCols ? &place : nullptr) {}

Chunk ChunkGrid::at(int64_t i) const {
  const Range r = down_.at(i / across_.n_chunks()), c = across_.at(i % across_.n_chunks());
  return {.row = r.first,
          .col = c.first,
          .rows = r.size,
          .cols = c.size,
          .row_shift = r.shift,
          .col_shift = c.shift};
}

Chunk ChunkGrid::with_next(int64_t i, int64_t ld) const {
  Chunk chunk = at(i);
  if (i + 1 == size()) return chunk;
  const Chunk next = at(i + 1);
  if (next.rows == chunk.rows && next.cols == chunk.cols) {
    chunk.ahead = (next.row - chunk.row) * ld + next.col - chunk.col;
  }
  return chunk;
}

int64_t ChunkGrid::chunk_rows(std::span<const Side> sides) {
  int64_t rows = 16;
  for (const Side& side : sides) {
    const bool rowwise = side.orientation == Orientation::kRowwise;
    rows = std::max<int64_t>(rows, rowwise ? side.spec().block.rows : side.plan.unit);
  }
  return rows;
}

ChunkGrid::Dimension::Dimension(int64_t size, int64_t chunk, const LogicalPlace* place)
    : chunk_(chunk) {
  const int n = place == nullptr ? 1 : place->n_stretches;
  for (int i = n - 1; i >= 0; --i) {
    const auto at = static_cast<size_t>(i);
    const LogicalPlace::Stretch from =
        place == nullptr ? LogicalPlace::Stretch{} : place->stretches[at];
    const int64_t length = size - from.first;  // `size` is where the next one begins
    stretches_[at] = {.range = {from.first, length, from.logical - from.first},
                      .n_chunks = (length + chunk - 1) / chunk};
    n_chunks_ += stretches_[at].n_chunks;
    size = from.first;
  }
}

ChunkGrid::Range ChunkGrid::Dimension::at(int64_t i) const {
  size_t s = 0;
  while (i >= stretches_[s].n_chunks) i -= stretches_[s++].n_chunks;
  const Range& range = stretches_[s].range;
  return {range.first + i * chunk_, std::min(chunk_, range.size - i * chunk_), range.shift};
}

}  // namespace qstep::ops::cpu
