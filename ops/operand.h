// One side of a GEMM: a tensor in the orientation and format in which the GEMM reads it.
//
// Every GEMM is d[m,n] = alpha a[m,k] b[n,k]^T. A tensor used in two GEMMs has two operands (the
// words are Transformer Engine's): "rowwise" sums along its columns, "columnwise" along its rows.
// In FP32 and BF16 both are views of the same memory.
#pragma once

#include "ops/native_form.h"
#include "ops/tensor.h"

namespace qstep::ops {

// Which index of the operand is contiguous in memory.
enum class Major : uint8_t { kK, kRows };

struct Operand {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t rows = 0;  // m or n
  int64_t k = 0;     // the summed dimension
  int64_t ld = 0;    // elements between two rows (kK) or between two k (kRows)
  Major major = Major::kK;

  // A quantized operand stands for data times these FP32 factors (ops/quantized_tensor.h).
  const float* scale = nullptr;  // of the whole operand, scale[0] / scale_denominator; null: 1
  float scale_denominator = 1.0f;
  const float* tile_scales = nullptr;  // [rows / tile_rows, k / tile_k] row-major; null: none
  int64_t tile_rows = 0, tile_k = 0;

  // What the data were rounded to; kBf16: nothing but their own type. The product does not depend
  // on it.
  precision::QuantFormat format = precision::QuantFormat::kBf16;

  // What a GPU's matrix units read, where it was written for them (ops/native_form.h). `data` may
  // be null then.
  NativeForm form = {};
  const uint8_t* codes = nullptr;      // [rows, code_bytes]
  const void* block_scales = nullptr;  // of rows or blocks; null: `scale` alone
};

// d[m,n] of type `out` from operands [m,k] and [n,k] in these forms.
struct CodeProduct {
  NativeForm a = {}, b = {};
  int64_t m = 0, n = 0, k = 0;
  Dtype out = Dtype::kBf16;
};

inline Operand rowwise(const Tensor& x) {
  return {x.data, x.dtype, x.rows, x.cols, x.ld, Major::kK};
}
inline Operand columnwise(const Tensor& x) {
  return {x.data, x.dtype, x.cols, x.rows, x.ld, Major::kRows};
}

// The data of k first .. first + n - 1 alone, without factors.
inline Operand k_range(const Operand& x, int64_t first, int64_t n) {
  const int64_t step = x.major == Major::kK ? 1 : x.ld;
  const char* const data = static_cast<const char*>(x.data) + first * step * size_bytes(x.dtype);
  return {data, x.dtype, x.rows, n, x.ld, x.major};
}

}  // namespace qstep::ops
