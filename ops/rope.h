// Rotary positions. Su et al., "RoFormer" (2021); Llama's layout: element j of a head's first half
// turns with element j of its second half.
//   (x[j], x[j + D/2]) <- (x[j] cos a - x[j + D/2] sin a, x[j] sin a + x[j + D/2] cos a)
//   a = position theta^(-2j/D), position = first_position + n % T; Direction::kBackward turns by
//   -a.
#pragma once

#include <cstdint>
#include <span>

#include "ops/ops.h"
#include "ops/tensor.h"

namespace qstep::ops {

// qkv[N, (H + 2 K) D], D even; table[positions, D] covers first_position + T.
void check_rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
                int64_t first_position);

// table[position, 0 .. D] = [cos: D/2 | sin: D/2] of the angles above, computed in FP64.
void fill_rope_table(std::span<float> table, int64_t n_positions, int64_t head_dim, double theta);

namespace cpu {

// In place on the query and key heads of qkv; v is not touched.
void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
          int64_t first_position, Direction direction);

}  // namespace cpu

class CudaContext;
namespace cuda {

void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
          int64_t first_position, Direction direction, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
