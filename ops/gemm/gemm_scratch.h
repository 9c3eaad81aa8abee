// What products of the CUDA backend take of the GPU's memory beside their tensors.
#pragma once

#include <cstdint>

namespace qstep::ops {

// The library's, for all products: what NVIDIA's samples give Hopper's kernels.
inline constexpr int64_t kGemmWorkspaceBytes = 32 << 20;

// FP32 sums and the product of one tile, of operands with factors per tile: elements of d.
constexpr int64_t tiled_product_floats(int64_t elements) { return 2 * elements; }

}  // namespace qstep::ops
