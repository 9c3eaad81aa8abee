// One orientation of a quantized tensor as this machine's GEMM reads it: every code times its block
// scale, decoded to BF16 (exact but for the extreme exponents of E8M0: precision/README.md), in the
// layout of the source, with the FP32 factors that do not fit into BF16 beside it.
//
//   x[r,c] ~ values[r,c] * tensor_factor * tile_scale of the tile that holds (r, c)
//   tensor_factor = scale[0] / denominator
#pragma once

#include <array>

#include "ops/arena.h"
#include "ops/operand.h"
#include "precision/quant_spec.h"

namespace qstep::ops {

using precision::QuantSpec;

// Which index of the source the GEMM sums over: columns (rowwise) or rows (columnwise).
enum class Orientation : uint8_t { kRowwise, kColumnwise };

struct QuantizedTensor {
  QuantSpec spec;
  Orientation orientation = Orientation::kRowwise;
  Tensor values;  // [rows, cols] BF16, as the source
  // [1, 1] FP32: amax of what was quantized (nvfp4), scale_inv (fp8 per tensor), the scale of
  // MS-EDEN. Empty where there is no factor per tensor.
  Tensor scale;
  // FP32 factor per tile, fp8 blocks and outer groups; [operand rows / tile rows, k / tile k],
  // rounded up. Empty elsewhere.
  Tensor tile_scales;
  // What a GPU's matrix units read, where a GEMM takes the format natively (ops/native_form.h);
  // empty elsewhere, and on CPUs always. Values may be left out then: only their shape is there.
  Tensor codes = {};         // bytes [operand rows, code_bytes]
  Tensor block_scales = {};  // [1, block_scale_count]; empty where there are none of blocks

  explicit operator bool() const { return values || codes; }
};

// What is stored of an orientation. Without values the caller points them at memory of its own (or
// of the other orientation, where they are the same), or a GEMM reads the codes.
struct Stored {
  bool values = true;
  bool codes = false;
};
// Takes the memory from an arena (a measuring one too) for a source [rows, cols].
QuantizedTensor lay_out_quantized(Arena& arena, std::string_view owner, const QuantSpec& spec,
                                  Orientation orientation, int64_t rows, int64_t cols,
                                  Stored stored = {});

// The first n rows of what was laid out for more: for a source of n rows. Of values, not of codes.
QuantizedTensor first_rows(const QuantizedTensor& q, int64_t n);

// What a GEMM reads.
Operand operand(const QuantizedTensor& q);

using precision::has_tensor_scale;

// Divides `scale[0]` in the factor of the whole tensor: 6 * 448 for nvfp4, 1 for fp8, ...
float scale_denominator(const QuantSpec& spec);

// Elements of a tile of tile_scales: {rows of the operand, k}; {0, 0} without them. k 0 = all of k.
precision::BlockShape scale_tile(const QuantSpec& spec);

// ---- one call -------------------------------------------------------------------------------

// Which random bits (numerics 4.3): counters, no state.
struct QuantRandom {
  uint64_t seed = 0;
  uint32_t step = 0;                       // optimizer step
  uint64_t micro_batch = 0;                // g, within the step; 0 for weights
  uint32_t module = 0;                     // 24 bits: the linear layer
  uint32_t slot = 0;                       // 0 x, 1 w, 2 dy
  uint32_t gemm_row = 0, gemm_column = 0;  // Hadamard signs: 0 fprop, 1 dgrad, 2 wgrad, of the
                                           // GEMM that reads the orientation
  // Of E2M1; kHardware only where Ops::has_hardware_rounder.
  precision::StochasticRounder rounder = precision::StochasticRounder::kPortable;
};

// Where the source lies in the logical tensor that a tensor-parallel group holds together: random
// bits count logical elements and square blocks lie on the logical grid, so that codes do not
// depend on the split (numerics 8). One dimension is cut; the source holds up to kMaxStretches
// stretches of it, in order, each a multiple of every block, scale tile and Hadamard size along
// that dimension (but for the end of the logical tensor, which may be ragged where formats are).
enum class SplitDim : uint8_t { kNone, kRows, kCols };
struct LogicalPlace {
  static constexpr int kMaxStretches = 3;  // a rank's q, k and v; its gate and up
  struct Stretch {
    int64_t first = 0;    // in the source
    int64_t logical = 0;  // of the same row or column in the logical tensor
  };

  SplitDim split = SplitDim::kNone;  // kNone: the source is the logical tensor
  int64_t size = 0;                  // of the logical tensor along the cut dimension
  int n_stretches = 0;
  std::array<Stretch, kMaxStretches> stretches{};

  // Of row or column i of the source, along the cut dimension.
  QSTEP_HD int64_t logical(int64_t i) const {
    int s = n_stretches - 1;
    while (s > 0 && i < stretches[static_cast<size_t>(s)].first) --s;
    const Stretch& stretch = stretches[static_cast<size_t>(s)];
    return stretch.logical + i - stretch.first;
  }
  QSTEP_HD int64_t logical_row(int64_t r) const {
    return split == SplitDim::kRows ? logical(r) : r;
  }
  QSTEP_HD int64_t logical_col(int64_t c) const {
    return split == SplitDim::kCols ? logical(c) : c;
  }
  // Of the logical tensor, for a source of so many.
  QSTEP_HD int64_t logical_rows(int64_t rows) const {
    return split == SplitDim::kRows ? size : rows;
  }
  QSTEP_HD int64_t logical_cols(int64_t cols) const {
    return split == SplitDim::kCols ? size : cols;
  }
};

// Brings what every rank of a group found to the largest of it, between the passes of a quantizer:
// the factor of a tensor, or of an operand row that is cut along k, is that of the logical one. The
// ranks quantize parts of the same tensors with the same specs, so that all of them call it alike:
// once for both orientations, or once for each where the columnwise operand is made from the
// rowwise one; never where no amax goes beyond the source.
class AmaxJoin {
 public:
  virtual ~AmaxJoin() = default;
  // bits [1, n] int32, those of FP32 magnitudes, which are ordered as integers, NaN above all:
  // maximum over the ranks, in place. They lie in the quantizer's workspace: no operation may run
  // meanwhile on the same backend.
  virtual void max(const Tensor& bits) = 0;
};

// What the ledger says of one orientation, summed over the elements of the source; of those on this
// rank, but for `scale`.
struct QuantStats {
  double elements = 0;
  double amax = 0;         // of what was quantized, non-finite elements left out
  double scale = 0;        // the tensor's factor; 1 without one
  double underflowed = 0;  // not zero before, zero after
  double saturated = 0;    // beyond the largest value by more than rounding
  double non_finite = 0;   // of the source
  double blocks = 0, zero_scales = 0;
  double squared = 0;        // sum v^2
  double squared_error = 0;  // sum (v - dequantized)^2
};

struct QuantCall {
  QuantRandom random;
  LogicalPlace place = {};
  AmaxJoin* join = nullptr;  // null: the source is all of the tensor
  // [1, 1] int32, or empty: the largest bits of |x|, NaN above all numbers, found where x was made.
  // Spares fp8 with the scale of this tensor its first read of x; others do not look at it. Not
  // beside `join`: x is all of the tensor.
  Tensor amax = {};
  // fp8 delayed: the scale that is used, and amax[1,1] FP32, raised to the largest seen.
  Tensor delayed_scale, delayed_amax;
  // [1, 1] int32, or empty: set to 1 when what is quantized here (behind a Hadamard transform)
  // holds a NaN or an infinity; those of other ranks do not count.
  Tensor non_finite;
  // Host memory, zero on entry; null: not counted.
  QuantStats* row_stats = nullptr;
  QuantStats* column_stats = nullptr;
};

}  // namespace qstep::ops
