// The chunks of a source that threads work on. None reaches from one stretch of the logical tensor
// into the next, so that inside a chunk one number leads from a row, and one from a column, to that
// of the logical tensor.
#pragma once

#include <array>
#include <span>

#include "ops/quantize/quantize_side.h"

namespace qstep::ops::cpu {

class ChunkGrid {
 public:
  // For a source [rows, cols], in chunks of whole units and square blocks of every side.
  ChunkGrid(std::span<const Side> sides, int64_t rows, int64_t cols, const LogicalPlace& place);

  int64_t size() const { return down_.n_chunks() * across_.n_chunks(); }
  Chunk at(int64_t i) const;
  // With the way to chunk i + 1, in elements of a source whose rows are ld apart.
  Chunk with_next(int64_t i, int64_t ld) const;

 private:
  struct Range {
    int64_t first = 0, size = 0, shift = 0;
  };

  // The rows or the columns.
  class Dimension {
   public:
    // place: of the source along this dimension; null: not cut.
    Dimension(int64_t size, int64_t chunk, const LogicalPlace* place);
    int64_t n_chunks() const { return n_chunks_; }
    Range at(int64_t i) const;

   private:
    struct Stretch {
      Range range;
      int64_t n_chunks = 0;
    };
    int64_t chunk_, n_chunks_ = 0;
    std::array<Stretch, LogicalPlace::kMaxStretches> stretches_{};
  };

  static int64_t chunk_rows(std::span<const Side> sides);

  Dimension down_, across_;
};

}  // namespace qstep::ops::cpu
