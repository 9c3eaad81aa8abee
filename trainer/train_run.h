// A training run from start to end: data, resume, the loop over steps, evaluation, checkpoints,
// signals.
#pragma once

#include "ops/error.h"
#include "trainer/config.h"

namespace qstep::trainer {

// Runs until the last step (kOk) or a stop signal (kPreempted, after a checkpoint). Everything else
// is an Error. The run folder's exit_reason.json says how it ended in either case.
ops::ExitCode run_training(const Config& config);

}  // namespace qstep::trainer
