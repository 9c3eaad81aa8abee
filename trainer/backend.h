// Which backend a run computes on.
#pragma once

#include <memory>

#include "ops/ops.h"
#include "trainer/config.h"

namespace qstep::trainer {

// kAuto: the GPU's where there is one and the run has one rank. An Error (gpu) where a GPU is
// demanded and cannot be had.
std::unique_ptr<ops::Ops> make_backend(Device device, int n_ranks = 1);

}  // namespace qstep::trainer
