// Ranks as a mesh: data x tensor. Arithmetic only.
#pragma once

#include <memory>

#include "parallel/comm.h"

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

// The mesh of n_ranks with tensor groups of `tensor`, local_size ranks a node. An Error (config)
// where that does not come out even, or where a tensor group would cross nodes.
inline Mesh make_mesh(int n_ranks, int tensor, int local_size) {
  const auto refuse = [](const std::string& text) {
    throw ops::Error(ops::ExitCode::kConfig, text);
  };
  if (tensor < 1 || n_ranks % tensor != 0) {
    refuse(
        fmt::format("parallel.tensor is {}, which does not divide the {} ranks of this run: "
                    "change it, or the number of ranks",
                    tensor, n_ranks));
  }
  if (n_ranks > local_size && local_size % tensor != 0) {
    refuse(
        fmt::format("parallel.tensor is {}, which does not divide the {} ranks of a node, so "
                    "that groups would cross nodes: change it, or the ranks per node",
                    tensor, local_size));
  }
  return {.data = n_ranks / tensor, .tensor = tensor};
}

// The group of this rank along either side of the mesh; collectives of all of `world`.
inline std::unique_ptr<Comm> split_data(Comm& world, const Mesh& mesh) {
  return world.split(mesh.tensor_rank(world.rank()), mesh.data_rank(world.rank()));
}
inline std::unique_ptr<Comm> split_tensor(Comm& world, const Mesh& mesh) {
  return world.split(mesh.data_rank(world.rank()), mesh.tensor_rank(world.rank()));
}

}  // namespace qstep::parallel
