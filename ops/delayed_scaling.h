// Delayed scaling (numerics 7.2): the FP8 scale of a tensor from the amaxes of earlier steps.
#pragma once

#include "ops/ops.h"

namespace qstep::ops::cpu {

void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                           const Tensor& fp8_max, const precision::DelayedScaling& delayed);

}  // namespace qstep::ops::cpu
