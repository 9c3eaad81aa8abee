// A training run with what belongs around it: the run folder and the account of how it ended.
#pragma once

#include "ops/error.h"
#include "parallel/comm.h"
#include "trainer/config/config.h"
#include "trainer/run/run_watch.h"

namespace qstep::trainer {

// Runs until the last step (kOk), a stop signal (kPreempted) or the time limit (kTimeLimit), behind
// a checkpoint, as one of the data-parallel ranks `comm`, all of which make this call. Everything
// else is an Error. The run folder's exit_reason.json says how it ended in either case; the rank
// that reports writes it.
ops::ExitCode run_training(const Config& config, parallel::Comm& comm, RunWatch& watch);

// In this process alone.
ops::ExitCode run_training(const Config& config);

}  // namespace qstep::trainer
