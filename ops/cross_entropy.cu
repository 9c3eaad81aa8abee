#include "ops/cross_entropy_kernels.h"
#include "ops/cuda/cuda_launch.cuh"

namespace qstep::ops::cuda {

void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                           int64_t vocab, CudaContext& context) {
  device::cross_entropy_forward(device::CudaLaunch(context, "cross_entropy_forward"), loss, logits,
                                targets, vocab);
}

void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                            int64_t vocab, float scale, CudaContext& context) {
  device::cross_entropy_backward(device::CudaLaunch(context, "cross_entropy_backward"), loss,
                                 logits, targets, vocab, scale);
}

void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                        int64_t first_token, int64_t vocab, CudaContext& context) {
  device::cross_entropy_part(device::CudaLaunch(context, "cross_entropy_part"), part, logits,
                             targets, first_token, vocab);
}

void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts,
                        CudaContext& context) {
  device::cross_entropy_join(device::CudaLaunch(context, "cross_entropy_join"), loss, lse, parts);
}

void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                 int64_t first_token, int64_t vocab, float scale,
                                 CudaContext& context) {
  device::cross_entropy_part_backward(device::CudaLaunch(context, "cross_entropy_part_backward"),
                                      logits, lse, targets, first_token, vocab, scale);
}

}  // namespace qstep::ops::cuda
