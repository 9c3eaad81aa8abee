#include "ops/attention/attention_kernels.h"
#include "ops/cuda/cuda_launch.cuh"

namespace qstep::ops::cuda {

void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                       const AttentionShape& shape, CudaContext& context) {
  device::attention_forward(device::CudaLaunch(context, "attention_forward"), o, lse, qkv, shape);
}

void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                        const Tensor& lse, const AttentionShape& shape, CudaContext& context) {
  device::attention_backward(device::CudaLaunch(context, "attention_backward"), dqkv, d_o, qkv, o,
                             lse, shape);
}

void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                      const Tensor& qkv, const AttentionShape& shape, int64_t first_position,
                      CudaContext& context) {
  check_attention_cached(o, k_cache, v_cache, qkv, shape, first_position);
  const auto append = [&](const Tensor& cache, int64_t column) {
    const Tensor from = qkv.col_range(column, shape.kv_width());
    const Tensor to = cache.row_range(first_position, shape.seq_len);
    const auto element = static_cast<size_t>(size_bytes(qkv.dtype));
    cuda_check(cudaMemcpy2DAsync(
                   to.data, static_cast<size_t>(to.ld) * element, from.data,
                   static_cast<size_t>(from.ld) * element, static_cast<size_t>(from.cols) * element,
                   static_cast<size_t>(from.rows), cudaMemcpyDeviceToDevice, context.stream()),
               "attention_cached");
  };
  append(k_cache, shape.q_width());
  append(v_cache, shape.q_width() + shape.kv_width());
  device::attention_of_caches(device::CudaLaunch(context, "attention_cached"), o, k_cache, v_cache,
                              qkv, shape, first_position);
}

}  // namespace qstep::ops::cuda
