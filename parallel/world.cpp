#include "parallel/world.h"

#include "parallel/mpi_world.h"

namespace qstep::parallel {

std::unique_ptr<Comm> make_world(const Launch& launch) {
  if (launch.size == 1) return make_single();
  if (!launch.can_begin_mpi) {
    throw ops::Error(
        ops::ExitCode::kConfig,
        fmt::format("srun started {} tasks, but none of them can find the others: start them with "
                    "srun --mpi=pmix (srun --mpi=list shows what this Slurm has) or with mpirun; "
                    "for separate runs, with srun --ntasks=1 each",
                    launch.size));
  }
  std::unique_ptr<Comm> world = make_mpi();
  if (world->size() != launch.size) {
    throw ops::Error(
        ops::ExitCode::kConfig,
        fmt::format("{} started {} ranks, but the MPI library of this qstep sees {}: the launcher "
                    "belongs to another MPI. Use the one of the library that qstep was built with "
                    "(\"qstep doctor\" names it), or build qstep with the launcher's MPI",
                    launch.launcher, launch.size, world->size()));
  }
  return world;
}

}  // namespace qstep::parallel
