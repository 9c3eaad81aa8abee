#include "ops/cuda/cuda_launch.cuh"
#include "ops/embedding_kernels.h"

namespace qstep::ops::cuda {

void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                       int64_t first_token, const Tensor& wpe, int64_t seq_len,
                       int64_t first_position, CudaContext& context) {
  device::embedding_forward(device::CudaLaunch(context, "embedding_forward"), x, tokens, wte,
                            first_token, wpe, seq_len, first_position);
}

void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                        const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                        Accumulate dwpe_mode, CudaContext& context) {
  device::embedding_backward(device::CudaLaunch(context, "embedding_backward"), dwte, first_token,
                             dwpe, dx, tokens, seq_len, dwpe_mode);
}

}  // namespace qstep::ops::cuda
