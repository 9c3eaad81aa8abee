// The world that mpirun or srun started, with messages over MPI.
#pragma once

#include <memory>

#include "parallel/comm.h"

namespace qstep::parallel {

// All ranks of MPI_COMM_WORLD. Once per process, and all ranks call it. An Error (config) where
// qstep was built without MPI.
//
// The groups split from it must not outlive it. Destroyed in the usual way it waits for its queue
// and for the other ranks, and ends MPI. Destroyed by an exception, or after a failure, it waits
// for nobody and leaves MPI as it is: the process must then end by _exit with the error's code, as
// exit handlers of MPI may wait; the launcher ends the other ranks.
std::unique_ptr<Comm> make_mpi();

}  // namespace qstep::parallel
