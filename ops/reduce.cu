#include "ops/cuda/cuda_launch.cuh"
#include "ops/reduce_kernels.h"

namespace qstep::ops::cuda {

void mean(const Tensor& out, const Tensor& x, CudaContext& context) {
  device::mean(device::CudaLaunch(context, "mean"), out, x);
}

void square_sums(const Tensor& sums, const Tensor& g, CudaContext& context) {
  device::square_sums(device::CudaLaunch(context, "square_sums"), sums, g);
}

void norm_of_sums(const Tensor& norm, const Tensor& sums, CudaContext& context) {
  device::norm_of_sums(device::CudaLaunch(context, "norm_of_sums"), norm, sums);
}

}  // namespace qstep::ops::cuda
