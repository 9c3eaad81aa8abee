#include "ops/activation_kernels.h"
#include "ops/cuda/cuda_launch.cuh"

namespace qstep::ops::cuda {

void activation_forward(const Tensor& y, const Tensor& x, Activation kind, const Tensor& amax,
                        CudaContext& context) {
  device::activation_forward(device::CudaLaunch(context, "activation_forward"), y, x, kind, amax);
}

void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                         const Tensor& amax, CudaContext& context) {
  device::activation_backward(device::CudaLaunch(context, "activation_backward"), dx, dy, x, kind,
                              amax);
}

}  // namespace qstep::ops::cuda
