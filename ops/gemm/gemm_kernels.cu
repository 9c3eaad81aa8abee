#include "ops/cuda/cuda_launch.cuh"
#include "ops/gemm/gemm_kernels.h"

namespace qstep::ops::cuda {

using device::CudaLaunch;

void gemm_factors(const device::GemmFactors& f, CudaContext& context) {
  CudaLaunch(context, "gemm").each(1, f);
}

void add_tile_product(const device::AddTileProduct& add, int64_t size, CudaContext& context) {
  CudaLaunch(context, "gemm").each(size, add);
}

void finish_product(const Tensor& d, const float* y, const float* factor, const Tensor& bias,
                    bool accumulate, CudaContext& context) {
  dispatch_float(d.dtype, [&](auto out) {
    dispatch_float(bias ? bias.dtype : d.dtype, [&](auto of_bias) {
      using Out = decltype(out);
      using BiasType = decltype(of_bias);
      CudaLaunch(context, "gemm")
          .each(d.size(),
                device::FinishProduct<Out, BiasType>{.d = d.as<Out>(),
                                                     .y = y,
                                                     .factor = factor,
                                                     .bias = bias ? bias.as<BiasType>() : nullptr,
                                                     .n = d.cols,
                                                     .ld = d.ld,
                                                     .accumulate = accumulate});
    });
  });
}

void find_difference(int32_t* different, const void* a, const void* b, int64_t n,
                     CudaContext& context) {
  CudaLaunch(context, "gemm")
      .teams(1, device::kMaxTeam, 0,
             device::FindDifference{different, static_cast<const uint32_t*>(a),
                                    static_cast<const uint32_t*>(b), n});
}

}  // namespace qstep::ops::cuda
