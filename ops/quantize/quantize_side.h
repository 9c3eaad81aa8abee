// One orientation of a quantize call on its way through the passes: what it needs to know, and the
// loops over one chunk of the source.
#pragma once

#include "ops/quantize/quantize.h"
#include "ops/quantize/quantize_tile.h"

namespace qstep::ops::cpu {

inline constexpr int64_t kMaxChunkRows = 128, kMaxChunkCols = 512;

// A part of the source that one thread works on.
struct Chunk {
  int64_t row = 0, col = 0, rows = 0, cols = 0;
  // From a row or column of the source to that of the logical tensor.
  int64_t row_shift = 0, col_shift = 0;
  // Elements of the source from here to the chunk that the thread takes next; 0: not known. Chunks
  // are narrow and rows long, so that processors do not see by themselves what will be read.
  int64_t ahead = 0;
};

// Asks for what lies there, a line at a time.
template <class T>
inline void prefetch_elements(const T* x, int64_t n) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(x + i, 0, 2);
}

struct Side {
  const QuantizedTensor* q = nullptr;
  // In which direction it is worked on. Square blocks are always worked on along the rows of the
  // source, so that both orientations are the same codes.
  Orientation orientation = Orientation::kRowwise;
  precision::UnitPlan plan;
  bool exact = true;         // decoded values are BF16 numbers
  bool streams = false;      // decoded values go past the caches
  bool elementwise = false;  // fp8 with a scale per tensor or row: no units
  bool wants_stats = false;
  uint64_t micro_batch = 0;
  int64_t rows = 0, cols = 0;  // of the logical tensor
  // Factors, once they are known.
  float outer_amax = 0;  // nvfp4: of the tensor; MS-EDEN: s_dec
  precision::Nvfp4Factors<float> outer{};
  float scale = 1;             // fp8 per tensor
  bool tame = false;           // fp8: no element is NaN or beyond the largest value
  float* lane_amax = nullptr;  // amax scope row: one per operand row
  EncodedTensor* encoded = nullptr;

  const QuantSpec& spec() const { return q->spec; }
  bool needs_amax() const;
  // Lines are what it works along: their length, and where element (row, col) of the source comes
  // in the order of the logical tensor's random bits (numerics 4.3).
  int64_t line_length() const { return orientation == Orientation::kRowwise ? cols : rows; }
  uint64_t random_index(const Chunk& c, int64_t row, int64_t col) const {
    const auto r = static_cast<uint64_t>(row + c.row_shift);
    const auto k = static_cast<uint64_t>(col + c.col_shift);
    const auto n_rows = static_cast<uint64_t>(rows), n_cols = static_cast<uint64_t>(cols);
    return orientation == Orientation::kRowwise ? (micro_batch * n_rows + r) * n_cols + k
                                                : (micro_batch * n_cols + k) * n_rows + r;
  }
};

// What a chunk found, to be merged in the order of the chunks.
struct ChunkResult {
  uint32_t raw = 0;  // largest bits of |x|
  float amax = 0;    // the side's, NaN left out
  QuantStats stats;
};

Side make_side(const QuantizedTensor& q, Dtype source, const QuantCall& call, bool stats,
               EncodedTensor* encoded);

// FP32 factor of a decoded value of the whole tensor, once it is known.
float tensor_factor(const Side& side);

// amax of what the side quantizes (behind the Hadamard transform).
template <class T>
void chunk_amax(const Side& side, const T* x, int64_t ld, const Chunk& chunk, ChunkResult& result);

// amax per operand row, for the rows [first, first + n), n <= 16.
template <class T>
void lane_amax(const Side& side, const T* x, int64_t ld, int64_t rows, int64_t cols, int64_t first,
               int64_t n, ChunkResult& result);

// Quantizes the chunk.
template <class T>
void quantize_chunk(const Side& side, const T* x, int64_t ld, const Chunk& chunk,
                    ChunkResult& result);

// q as the other orientation, for encoded square blocks.
EncodedTensor transposed(const EncodedTensor& e);

}  // namespace qstep::ops::cpu
