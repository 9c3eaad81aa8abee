// The quantizers once more, as plainly as they can be written: from numerics 4, 5 and 7 alone, one
// loop after another, formats as tables, no arithmetic of the product. Tests hold ops::quantize
// against it bit for bit.
//
// FP32 in the order of the formulas (this code too is compiled without contraction). What numerics
// leaves open is decided here and marked "Choice".
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ops/quantized_tensor.h"
#include "tests/support/quant_reference_formats.h"

namespace qstep::test::reference {

using ops::Orientation;
using precision::QuantSpec;

struct Options {
  ops::QuantRandom random;
  ops::Dtype dtype = ops::Dtype::kF32;  // of the source
  float delayed_scale = 1.0f;
};

// One scale block.
struct BlockScale {
  uint8_t code = 0;      // as stored; nothing for fp8
  float factor = 1.0f;   // elements times this are rounded; MS-EDEN divides by it
  float decoded = 1.0f;  // rounded elements times this are `values`
};

struct Quantized {
  QuantSpec spec;
  int64_t rows = 0, k = 0;    // of the operand
  std::vector<float> source;  // [rows, k]: what is quantized, after the Hadamard transform
  int64_t scale_rows = 0, scale_k = 0;
  std::vector<BlockScale> blocks;  // [scale_rows, scale_k]
  std::vector<float> tile_scales;  // as ops::QuantizedTensor
  float scale = 1.0f, denominator = 1.0f;
  std::vector<float> scaled;   // [rows, k]: what is rounded
  std::vector<uint8_t> codes;  // [rows, k]
  std::vector<float> values;   // [rows, k]: codes times block scale, in BF16

  size_t index(int64_t row, int64_t kk) const { return static_cast<size_t>(row * k + kk); }
  const BlockScale& block_of(int64_t row, int64_t kk) const;
  float tile_scale_of(int64_t row, int64_t kk) const;  // 1 without tiles
  // What `values` stand for, exactly.
  double dequantized(int64_t row, int64_t kk) const;
  // Choice: the FP32 number that Source::kForward and the ledger mean: fl(value * factor), factor
  // the tile's scale or fl(scale * fl(1 / denominator)).
  float dequantized_fp32(int64_t row, int64_t kk) const;
};

// x [rows, cols], row by row.
Quantized quantize(const std::vector<float>& x, int64_t rows, int64_t cols, const QuantSpec& spec,
                   Orientation orientation, const Options& options);

// [rows, cols] of the tensor again: what a columnwise quantizer with Source::kForward reads.
std::vector<float> forward_values(const Quantized& rowwise);

// ---- the parts ------------------------------------------------------------------------------

const Format& element_format(const QuantSpec& spec);

// Whether one FP32 factor belongs to the whole tensor: the global scale of nvfp4 (7.6 to 7.8), the
// scale of fp8 per tensor (7.2, 7.3), the 4/3 of 7.10.
bool has_tensor_factor(const QuantSpec& spec);

// Largest magnitude; NaN is left out, infinity is not.
float amax_of(const std::vector<float>& values);

struct Nvfp4Factors {
  float s_enc, s_dec, mult;
};
float nvfp4_target(const QuantSpec& spec);       // what a block's amax is mapped to: 6 or 96/17
float nvfp4_denominator(const QuantSpec& spec);  // target * e4m3_max, rounded as S_enc needs it
Nvfp4Factors nvfp4_factors(float amax, const QuantSpec& spec);
float nvfp4_enc(uint8_t block_scale, float s_dec);  // what elements are multiplied by
BlockScale nvfp4_scale(float block_amax, const Nvfp4Factors& factors, const QuantSpec& spec);
struct FourOverSixChoice {
  BlockScale scale;
  bool map_to_four = false;
};
// block: row by row, rows of row_length elements; amax: what the factors were made from.
FourOverSixChoice four_over_six(const std::vector<float>& block, size_t row_length, float amax,
                                const QuantSpec& spec);
BlockScale mx_scale(float block_amax, const QuantSpec& spec);
float fp8_scale(float amax, float fp8_max, bool pow2, float largest);

// size 16, 32, 64 or 128; negative[j]: the sign of position j is minus.
void hadamard(float* group, int size, const std::vector<bool>& negative);
std::vector<bool> hadamard_signs(const QuantSpec& spec, Orientation orientation,
                                 const ops::QuantRandom& random);

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
// Numerics 4.3. Purposes: 0 elements, 1 scales of MS-EDEN, 2 signs.
uint32_t stream(uint32_t purpose, uint32_t direction, uint32_t slot, uint32_t module);
uint8_t element_byte(const ops::QuantRandom& random, uint32_t direction, uint64_t element);
float scale_uniform(const ops::QuantRandom& random, uint32_t direction, uint64_t block);

// Each fills blocks, scale, denominator and tile_scales from q.source, spec and shape; whole
// blocks.
void scale_nvfp4(Quantized& q);
void scale_four_over_six(Quantized& q, Orientation orientation);
void scale_outer_groups(Quantized& q);  // TetraJet-v2
// k: of the tensor, without padding
void scale_ms_eden(Quantized& q, int64_t k, Orientation orientation, const Options& options);
void scale_mx(Quantized& q);
void scale_fp8(Quantized& q, const Options& options);

// Elements of a block, row by row.
std::vector<float> block_elements(const Quantized& q, int64_t block_row, int64_t block_k);
float row_amax(const Quantized& q, int64_t row, int64_t first_k, int64_t n_k);

}  // namespace qstep::test::reference
