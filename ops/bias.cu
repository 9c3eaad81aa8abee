#include "ops/bias_kernels.h"
#include "ops/cuda/cuda_launch.cuh"

namespace qstep::ops::cuda {

void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate,
                   CudaContext& context) {
  device::bias_backward(device::CudaLaunch(context, "bias_backward"), db, dy, accumulate);
}

}  // namespace qstep::ops::cuda
