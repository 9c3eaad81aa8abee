#include "ops/cuda/cuda_launch.cuh"
#include "ops/rmsnorm_kernels.h"

namespace qstep::ops::cuda {

void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                     float eps, const Tensor& amax, CudaContext& context) {
  device::rmsnorm_forward(device::CudaLaunch(context, "rmsnorm_forward"), y, rstd, x, w, eps, amax);
}

void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                              const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                              const Tensor& amax, CudaContext& context) {
  device::residual_rmsnorm_forward(device::CudaLaunch(context, "residual_rmsnorm_forward"), sum, y,
                                   rstd, x, delta, w, eps, amax);
}

void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                      const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                      const Tensor& amax, CudaContext& context) {
  device::rmsnorm_backward(device::CudaLaunch(context, "rmsnorm_backward"), dx, dw, dy, x, w, rstd,
                           dx_mode, dw_mode, amax);
}

}  // namespace qstep::ops::cuda
