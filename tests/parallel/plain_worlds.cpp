// The worlds that need no GPU.
#include "parallel/mpi_world.h"
#include "parallel/world.h"
#include "tests/parallel/world_main.h"

namespace qstep::parallel {

Worlds make_worlds(const std::string& kind, int n_ranks) {
  // A world of one rank is not MPI unless it must.
  const bool mpi_alone = kind == "mpi" && n_ranks == 1;
  return {.hosts = nullptr, .tested = mpi_alone ? make_mpi() : make_world(find_launch())};
}

}  // namespace qstep::parallel
