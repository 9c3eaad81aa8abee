// Products on a GPU through cuBLASLt, FP32 accumulation (no TF32):
//   d = round(factor sum (+ bias) (+ d)), factor = gemm_factor                   ops/gemm/gemm.h
// Which kernel computes it: ops/gemm/gemm_plans.h.
//
// Where both operands hold codes and the library has a kernel for them, it multiplies those
// (ops/native_form.h): FP8 with FP32 scales per tensor, row or 128 elements, MXFP8, NVFP4. It
// applies scales of blocks, and that of an FP8 tensor; other factors are in alpha. Sums of FP8 are
// promoted to FP32 on the way (no fast accumulation). What an FP8 tensor core adds between
// promotions is not rounded as FP32 is: bounded, not the bits of decoded values.
//
// Decoded operands with a factor per tile of k: a product per tile and a pass over its partial
// sums, 12 bytes an element of d and tile; exact, not fast.
#pragma once

#include <memory>

#include "ops/cuda/cuda_context.h"
#include "ops/gemm/gemm.h"

namespace qstep::ops::cuda {

class Gemm {
 public:
  explicit Gemm(CudaContext& context);
  ~Gemm();
  void operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                  Accumulate accumulate, const Tensor& bias);
  // Ops::multiplies_codes: whether the library proposes a kernel on this GPU.
  bool multiplies_codes(const CodeProduct& product);

 private:
  struct Products;
  std::unique_ptr<Products> products_;
};

}  // namespace qstep::ops::cuda
