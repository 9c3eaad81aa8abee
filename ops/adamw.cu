#include "ops/adamw_kernels.h"
#include "ops/cuda/cuda_launch.cuh"

namespace qstep::ops::cuda {

void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
           const Tensor& grad, const Tensor& factor, const AdamWParams& params,
           CudaContext& context) {
  device::adamw(device::CudaLaunch(context, "adamw"), w, master, m, v, grad, factor, params);
}

void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss, float max_norm,
                 CudaContext& context) {
  device::clip_factor(device::CudaLaunch(context, "clip_factor"), factor, norm, loss, max_norm);
}

}  // namespace qstep::ops::cuda
