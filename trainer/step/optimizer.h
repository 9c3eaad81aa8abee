// AdamW over the list of weights: FP32 master, moments and gradients, weights rounded from the
// master.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"
#include "trainer/config/config.h"
#include "trainer/model/parameters.h"

namespace qstep::trainer {

// Neighbouring weights with the same decay: elements [first, first + size) of the flat arrays.
struct DecayStretch {
  int64_t first = 0, size = 0;
  Decay decay = Decay::kNo;
};

// In the order of their places; those of two buckets are apart.
std::vector<DecayStretch> decay_stretches(const ShardPlan& plan);

// One update of the elements in `run`, with the whole gradient `grads` scaled by factor[0]; t
// counts updates, this one included. Weight decay acts on the stretches that say so. A NaN factor
// leaves everything as it is.
void adamw_update(ops::Ops& ops, std::span<const DecayStretch> stretches, const OwnedRun& run,
                  const Parameters& parameters, const ParameterGroup& grads,
                  const ops::Tensor& factor, const OptimizerConfig& config, double lr, int64_t t);

}  // namespace qstep::trainer
