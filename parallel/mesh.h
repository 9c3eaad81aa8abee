// Ranks as a mesh: data x tensor.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <numeric>

#include "ops/error.h"
#include "parallel/comm.h"
#include "parallel/launch.h"

namespace qstep::parallel {

// rank = data_rank * tensor + tensor_rank. Neighbouring ranks form a tensor group, which talks most
// and stays within a node; ranks of equal tensor_rank form a data group.
struct Mesh {
  int data = 1, tensor = 1;  // sizes

  int size() const { return data * tensor; }
  int data_rank(int rank) const { return rank / tensor; }
  int tensor_rank(int rank) const { return rank % tensor; }
  int rank(int data_rank, int tensor_rank) const { return data_rank * tensor + tensor_rank; }
};

// The mesh of n_ranks, which `tensor` divides (trainer/config/rank_check.h tells users).
inline Mesh make_mesh(int n_ranks, int tensor) {
  ops::check(tensor >= 1 && n_ranks % tensor == 0, "make_mesh: groups of equal size");
  return {.data = n_ranks / tensor, .tensor = tensor};
}

// Throws an Error (config) where the launcher placed this rank so that tensor groups would cross
// nodes. All ranks call it: when none of them is refused, no group does. (By induction: before each
// group there are whole groups on every node; its rank j is number j of it on its own node, as rank
// and local rank agree modulo `tensor`, so that the j ranks before it are there too.)
inline void require_groups_in_nodes(const Launch& launch, int tensor) {
  if (launch.rank % tensor == launch.local_rank % tensor) return;
  throw ops::Error(
      ops::ExitCode::kConfig,
      fmt::format("parallel.tensor = {} wants its groups of ranks within nodes, but rank {} is "
                  "number {} of the {} on its node: write parallel.tensor = {}, or fill nodes one "
                  "after the other with a multiple of {} ranks (srun --distribution=block "
                  "--ntasks-per-node={}, mpirun --map-by ppr:{}:node)",
                  tensor, launch.rank, launch.local_rank, launch.local_size,
                  std::gcd(tensor, std::gcd(launch.rank - launch.local_rank, launch.local_size)),
                  tensor, tensor, tensor));
}

// The group of this rank along either side of the mesh; collectives of all of `world`.
inline std::unique_ptr<Comm> split_data(Comm& world, const Mesh& mesh) {
  return world.split(mesh.tensor_rank(world.rank()), mesh.data_rank(world.rank()));
}
inline std::unique_ptr<Comm> split_tensor(Comm& world, const Mesh& mesh) {
  return world.split(mesh.data_rank(world.rank()), mesh.tensor_rank(world.rank()));
}

}  // namespace qstep::parallel
