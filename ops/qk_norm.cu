#include "ops/cuda/cuda_launch.cuh"
#include "ops/qk_norm_kernels.h"

namespace qstep::ops::cuda {

void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                     const Tensor& wk, const AttentionShape& shape, float eps,
                     CudaContext& context) {
  device::qk_norm_forward(device::CudaLaunch(context, "qk_norm_forward"), y, rstd, qkv, wq, wk,
                          shape, eps);
}

void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                      const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                      const AttentionShape& shape, Accumulate dw_mode, CudaContext& context) {
  device::qk_norm_backward(device::CudaLaunch(context, "qk_norm_backward"), dqkv, dwq, dwk, qkv, wq,
                           wk, rstd, shape, dw_mode);
}

}  // namespace qstep::ops::cuda
