// What the launcher of this process says about the others, before any of them was talked to.
#pragma once

#include <functional>
#include <string>

namespace qstep::parallel {

struct Launch {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this node
  std::string launcher;                // "mpirun", "mpiexec", "srun"; empty: started plainly
  bool can_begin_mpi = true;           // false: srun without a PMI, by which ranks find each other
};

// The value of an environment variable, or nullptr: std::getenv, or a test's.
using Environment = std::function<const char*(const char*)>;

// From the variables of Open MPI (OMPI_COMM_WORLD_*), of PMI (MPICH, Intel MPI), and of Slurm's
// job steps, in this order: a later one may have started an earlier one. A batch script of Slurm
// is one process, however many tasks the job may start. An Error (config) where they make no sense.
Launch find_launch(const Environment& environment);
Launch find_launch();

}  // namespace qstep::parallel
