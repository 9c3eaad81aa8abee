#include "ops/cuda/cuda_launch.cuh"
#include "ops/rope_kernels.h"

namespace qstep::ops::cuda {

void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
          int64_t first_position, Direction direction, CudaContext& context) {
  device::rope(device::CudaLaunch(context, "rope"), qkv, table, shape, first_position, direction);
}

}  // namespace qstep::ops::cuda
