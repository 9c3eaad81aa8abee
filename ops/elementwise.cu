#include "ops/cuda/cuda_launch.cuh"
#include "ops/elementwise_kernels.h"

namespace qstep::ops::cuda {

void zero(const Tensor& x, CudaContext& context) {
  const auto element = static_cast<size_t>(size_bytes(x.dtype));
  if (x.size() == 0) return;
  if (x.contiguous()) {
    cuda_check(cudaMemsetAsync(x.data, 0, static_cast<size_t>(x.bytes()), context.stream()),
               "zero");
    return;
  }
  cuda_check(cudaMemset2DAsync(x.data, static_cast<size_t>(x.ld) * element, 0,
                               static_cast<size_t>(x.cols) * element, static_cast<size_t>(x.rows),
                               context.stream()),
             "zero");
}

void cast(const Tensor& y, const Tensor& x, CudaContext& context) {
  device::cast(device::CudaLaunch(context, "cast"), y, x);
}

void add(const Tensor& y, std::span<const Tensor> x, CudaContext& context) {
  device::add(device::CudaLaunch(context, "add"), y, x);
}

}  // namespace qstep::ops::cuda
