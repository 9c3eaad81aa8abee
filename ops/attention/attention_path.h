// For people: `qstep doctor`, and whoever wonders at the time that attention takes.
#pragma once

#include <string>

#include "ops/ops.h"

namespace qstep::ops {

// Which kernels compute attention of such tensors on the current GPU: "cuDNN 9.19.0, engine 6, 128
// MiB of scratch", or "plain FP32 kernels: " and why, which is slower by orders of magnitude. An
// Error (gpu) where there is no GPU or no CUDA backend.
std::string attention_path_on_gpu(const AttentionShape& shape, Dtype dtype, Direction direction);

}  // namespace qstep::ops
