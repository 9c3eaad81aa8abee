// A training run as it is started: in this process alone, or as one of the ranks of mpirun or srun,
// with the same command. Sees to it that all ranks end, with the code that says why, and that the
// user is told once.
#pragma once

#include <functional>

#include "ops/error.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

// run_training of what `load` reads on every rank. An Error is thrown where this process is alone
// or tells it for all; other ranks return its code. Where ranks cannot end together, because one
// died, hangs or failed alone, this does not return: the process tells what it has to tell and ends
// by _exit, as the libraries between the ranks would wait.
ops::ExitCode launch_run(const std::function<Config()>& load);

}  // namespace qstep::trainer
