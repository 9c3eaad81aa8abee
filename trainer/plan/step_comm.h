// The communication of a predicted step: bytes as parallel/README.md counts them, at the rate of
// the slowest connection that a group of ranks crosses, hidden as far as the trainer hides it.
#pragma once

#include <vector>

#include "trainer/plan/step_model.h"

namespace qstep::trainer {

// Seconds of one micro-batch that communication may run beside.
struct Windows {
  double forward = 0;   // of all blocks
  double backward = 0;  // of all blocks, the head not included
  double update = 0;
  double wgrad_column = 0;  // the weight gradients of qkv and up together
};

std::vector<CommTime> step_comm(const StepWork& work, const ModelConfig& model,
                                GradientType gradients, const MachineModel& machine,
                                const Windows& windows);

}  // namespace qstep::trainer
