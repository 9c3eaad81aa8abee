#include "ops/cuda/cuda_launch.cuh"
#include "ops/quantize/delayed_scaling_kernels.h"

namespace qstep::ops::cuda {

void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                           const Tensor& fp8_max, const Tensor& factor,
                           const precision::DelayedScaling& delayed, CudaContext& context) {
  device::update_delayed_scales(device::CudaLaunch(context, "update_delayed_scales"), history,
                                scale, amax, fp8_max, factor, delayed);
}

}  // namespace qstep::ops::cuda
