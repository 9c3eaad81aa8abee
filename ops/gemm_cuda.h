// Products on a GPU through cuBLASLt, FP32 accumulation (no TF32):
//   d = round(factor sum (+ bias) (+ d)), factor = gemm_factor                   ops/gemm.h
// One plan per GemmPlanKey, made at first use and kept. Of the kernels that the library proposes
// the fastest is taken among those that give the bits of its first proposal, timed once on the
// operands of the first call: what is computed does not depend on the timing.
//
// Operands with a factor per tile of k: a product per tile and a pass over its partial sums,
// 12 bytes an element of d and tile; exact, not fast.
#pragma once

#include <memory>

#include "ops/cuda_context.h"
#include "ops/gemm.h"

namespace qstep::ops::cuda {

class Gemm {
 public:
  explicit Gemm(CudaContext& context);
  ~Gemm();
  void operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                  Accumulate accumulate, const Tensor& bias);

 private:
  struct Plans;
  std::unique_ptr<Plans> plans_;
};

}  // namespace qstep::ops::cuda
