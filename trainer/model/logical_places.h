// Where a rank's x, w and dy of a linear layer lie in those of the whole layer (numerics 8).
#pragma once

#include <array>

#include "ops/quantized_tensor.h"
#include "trainer/config/layer_precision.h"
#include "trainer/model/weight_split.h"

namespace qstep::trainer {

// By precision::LinearTensor. A column-parallel layer (qkv, up) has all of x, and its own rows of w
// and columns of dy; a row-parallel one (attn_out, down) its own columns of x and w, and all of dy.
std::array<ops::LogicalPlace, 3> logical_places(const ModelConfig& model, LinearKind kind,
                                                const TensorPlace& place);

}  // namespace qstep::trainer
