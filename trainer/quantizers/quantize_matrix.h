// One matrix through one quantizer, with everything that can be said of the result.
#pragma once

#include <string>
#include <string_view>

#include "ops/quantize/quantize.h"

namespace qstep::trainer {

struct MatrixQuantizer {
  precision::QuantSpec spec;
  ops::Orientation orientation = ops::Orientation::kRowwise;
};

// "rowwise", "columnwise"
std::string_view name_of(ops::Orientation orientation);

struct Matrix {
  ops::Buffer memory;
  ops::Tensor tensor;
};

// From a .npy file of float32, or of bfloat16 as 16-bit words. Error (data) where it holds
// something else, or nothing.
Matrix read_matrix(const std::string& path, bool bf16);

// Error (data) unless the Hadamard groups of the quantizer cover x, which is from `path`. Blocks
// may be cut off by the end of x: what lies beyond counts as zero.
void check_shape(const MatrixQuantizer& quantizer, const ops::Tensor& x, const std::string& path);

struct QuantizedMatrix {
  ops::Buffer memory;
  ops::QuantizedTensor q;
  ops::EncodedTensor encoded;
  ops::QuantStats stats;
  // Source bytes read and decoded values written per second by the training step's quantizer, the
  // best of three runs.
  double gb_per_s = 0;

  double snr_db() const;  // 10 log10(sum v^2 / sum (v - dequantized)^2)
};

// x is what is quantized, whatever spec.source says.
QuantizedMatrix quantize_matrix(const MatrixQuantizer& quantizer, const ops::Tensor& x,
                                ops::QuantCall call);

}  // namespace qstep::trainer
