// The learning rate of a step.
#pragma once

#include <cstdint>

#include "trainer/config/config.h"

namespace qstep::trainer {

// Rate of update `step`, counted from 0, of `steps`. Warm-up rises linearly and reaches lr at its
// last step: lr (step + 1) / warmup_steps. With u in [0, 1] the position between the end of warm-up
// and the last step of the run:
//   constant  lr
//   linear    lr + u (min_lr - lr)
//   cosine    min_lr + (lr - min_lr) (1 + cos(pi u)) / 2              Loshchilov and Hutter 2017
//   wsd       lr, then linear to min_lr over the last decay_fraction of the run      Hu et al. 2024
// Linear, cosine and WSD are exactly min_lr at the last step.
double learning_rate(const OptimizerConfig& config, int64_t step, int64_t steps);

}  // namespace qstep::trainer
