#include "ops/cuda/cuda_launch.cuh"
#include "ops/layernorm_kernels.h"

namespace qstep::ops::cuda {

void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                       const Tensor& w, const Tensor& b, float eps, const Tensor& amax,
                       CudaContext& context) {
  device::layernorm_forward(device::CudaLaunch(context, "layernorm_forward"), y, mean, rstd, x, w,
                            b, eps, amax);
}

void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                const Tensor& w, const Tensor& b, float eps, const Tensor& amax,
                                CudaContext& context) {
  device::residual_layernorm_forward(device::CudaLaunch(context, "residual_layernorm_forward"), sum,
                                     y, mean, rstd, x, delta, w, b, eps, amax);
}

void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                        const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                        Accumulate dx_mode, Accumulate dw_mode, const Tensor& amax,
                        CudaContext& context) {
  device::layernorm_backward(device::CudaLaunch(context, "layernorm_backward"), dx, dw, db, dy, x,
                             w, mean, rstd, dx_mode, dw_mode, amax);
}

}  // namespace qstep::ops::cuda
