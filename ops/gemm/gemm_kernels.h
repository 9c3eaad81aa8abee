// The kernels around cuBLASLt's products (ops/gemm/gemm_elements.h), launched on the context's
// stream.
#pragma once

#include "ops/cuda/cuda_context.h"
#include "ops/gemm/gemm_elements.h"
#include "ops/tensor.h"

namespace qstep::ops::cuda {

void gemm_factors(const device::GemmFactors& f, CudaContext& context);
void add_tile_product(const device::AddTileProduct& add, int64_t size, CudaContext& context);
// d = round(fl(fl(fl(factor y) + bias) + d)); y [m,n] FP32 contiguous, factor on the device or
// null.
void finish_product(const Tensor& d, const float* y, const float* factor, const Tensor& bias,
                    bool accumulate, CudaContext& context);
// *different (device memory) = whether any of n 32-bit words of a and b differ, 0 or 1.
void find_difference(int32_t* different, const void* a, const void* b, int64_t n,
                     CudaContext& context);

}  // namespace qstep::ops::cuda
