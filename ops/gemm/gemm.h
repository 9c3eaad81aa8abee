// d[m,n] (+)= alpha sum_k a[m,k] b[n,k] (+ bias[n]) through oneDNN, FP32 accumulation:
//   d = round(fl(fl(fl(factor sum) + bias) + d)), every fl in FP32, round to the type of d.
// The factor holds alpha and the scales of quantized operands. It is read at every call, and a
// quantized operand has the same plan whatever its scale is. Operands with a factor per tile go
// to ops/gemm/gemm_tiled.h.
//
// One plan per (shape, strides, types, epilogue), made at first use and kept: nothing is created
// once every shape has been seen. oneDNN reads either orientation of either operand at full speed,
// so BF16 and FP32 operands are never copied or transposed.
#pragma once

#include <memory>

#include "ops/ops.h"

namespace qstep::ops {

// a [m,k] and b [n,k] of one floating type, d [m,n] of that type or FP32, bias [n] of a's type.
inline void check_gemm(const Tensor& d, const Operand& a, const Operand& b, const Tensor& bias) {
  check_equal(a.k, b.k, "gemm: the summed dimension of a and b");
  check(a.k > 0, "gemm: the summed dimension is empty");
  check_equal(name(a.dtype), name(b.dtype), "gemm: types of a and b");
  check(a.dtype == Dtype::kF32 || a.dtype == Dtype::kBf16, "gemm: operands are fp32 or bf16");
  expect_shape(d, a.rows, b.rows, "gemm: d");
  check(d.dtype == Dtype::kF32 || d.dtype == a.dtype, "gemm: d is fp32 or of the operands' type");
  if (bias) {
    expect_shape(bias, 1, b.rows, "gemm: bias");
    expect_dtype(bias, a.dtype, "gemm: bias");
  }
}

// What multiplies the FP32 sum: fl(fl(fl(alpha sa) sb) fl(1 / fl(da db))) (Transformer Engine,
// common/recipe/nvfp4.cu; numerics 7.6). An operand without a scale has scale and denominator 1.
inline float gemm_factor(float alpha, const Operand& a, const Operand& b) {
  const auto scale = [](const Operand& x) { return x.scale != nullptr ? *x.scale : 1.0f; };
  const auto denominator = [](const Operand& x) {
    return x.scale != nullptr ? x.scale_denominator : 1.0f;
  };
  return alpha * scale(a) * scale(b) * (1.0f / (denominator(a) * denominator(b)));
}

namespace cpu {

class Gemm {
 public:
  Gemm();
  ~Gemm();
  void operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                  Accumulate accumulate, const Tensor& bias);

 private:
  struct Plans;
  std::unique_ptr<Plans> plans_;
};

}  // namespace cpu
}  // namespace qstep::ops
