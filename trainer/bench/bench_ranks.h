// Commands of `qstep bench` that run training steps, on every rank of a launch: in one process, or
// under mpirun and srun.
#pragma once

#include <functional>

#include "ops/error.h"
#include "parallel/comm.h"
#include "trainer/bench/bench_workload.h"

namespace qstep::trainer {

// Each rank calls f(world) with its share of the threads; f prints on rank 0 alone. An AgreedError
// is thrown on by rank 0, which tells it, and returned as a code on the others; any other error of
// one rank of several ends its process, and with it the launch.
ops::ExitCode bench_on_ranks(const BenchWorkload& workload,
                             const std::function<void(parallel::Comm& world)>& f);

// The configuration of each recipe, known on all ranks to be one that they can share, with the
// device that all of them have (choose_device).
std::vector<Config> configs_on_ranks(const BenchWorkload& workload,
                                     const std::vector<std::string>& recipes,
                                     parallel::Comm& world);

}  // namespace qstep::trainer
