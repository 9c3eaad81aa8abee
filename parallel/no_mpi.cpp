// Stands where the MPI world would: says why there is none.
#include "parallel/mpi_world.h"

namespace qstep::parallel {

std::unique_ptr<Comm> make_mpi() {
  throw ops::Error(ops::ExitCode::kConfig,
                   "this qstep was built without MPI, so its processes cannot work together: "
                   "install an MPI library (apt install libopenmpi-dev openmpi-bin), configure and "
                   "build again; or start one process, without mpirun or srun");
}

}  // namespace qstep::parallel
