// From how the process was started to the world it is in.
#pragma once

#include <memory>

#include "parallel/comm.h"
#include "parallel/launch.h"

namespace qstep::parallel {

// MPI (mpi_world.h) where a launcher started more than one rank, otherwise the single-process
// world, which touches no MPI library. An Error (config) where the launcher's word and the build or
// the MPI library contradict each other.
std::unique_ptr<Comm> make_world(const Launch& launch);

// CPUs that this rank may keep busy: every CPU that it may run on, divided by the number of ranks
// that may run there too, added up and rounded down; at least 1. A collective.
int cpu_share(Comm& comm);

}  // namespace qstep::parallel
