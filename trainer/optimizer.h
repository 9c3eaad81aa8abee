// AdamW over the list of weights: FP32 master, moments and gradients, weights rounded from the
// master.
#pragma once

#include "trainer/config.h"
#include "trainer/parameters.h"

namespace qstep::trainer {

// One update with gradients `grads` scaled by factor[0]; t counts updates, this one included.
// Weight decay acts where the list of weights says so. A NaN factor leaves everything as it is.
void adamw_update(ops::Ops& ops, const ModelConfig& model, Parameters& parameters,
                  ParameterGroup& grads, const ops::Tensor& factor, const OptimizerConfig& config,
                  double lr, int64_t t);

}  // namespace qstep::trainer
