// The ranks of a run as a mesh, and this rank's groups in it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "parallel/mesh.h"

namespace qstep::trainer {

// What a group of ranks is, and this rank's place in it.
struct NamedGroup {
  std::string name;  // "data", "tensor", "world"
  int rank = 0, size = 1;
};
using NamedGroups = std::map<std::string, NamedGroup>;  // by Comm::group()

class RankGroups {
 public:
  // A collective of `world`, which outlives this; tensor divides its size.
  RankGroups(parallel::Comm& world, int tensor)
      : mesh_(parallel::make_mesh(world.size(), tensor)), world_(world) {
    if (tensor == 1) return;
    tensor_ = parallel::split_tensor(world, mesh_);
    data_ = parallel::split_data(world, mesh_);
  }

  const parallel::Mesh& mesh() const { return mesh_; }
  parallel::Comm& world() const { return world_; }
  // Ranks with the same part of the model and other micro-batches.
  parallel::Comm& data() const { return data_ ? *data_ : world_; }
  // Ranks with the other parts of the model and the same micro-batches; null where this one has
  // all of it.
  parallel::Comm* tensor() const { return tensor_.get(); }

  // All of this rank's; the world is "data" where it is one data-parallel group.
  NamedGroups by_name() const {
    NamedGroups groups;
    const auto add = [&](const char* name, const parallel::Comm& group) {
      groups[std::string(group.group())] = {name, group.rank(), group.size()};
    };
    add("world", world_);
    if (tensor_) add("tensor", *tensor_);
    add("data", data());
    return groups;
  }

 private:
  parallel::Mesh mesh_;
  parallel::Comm& world_;
  std::unique_ptr<parallel::Comm> tensor_, data_;
};

}  // namespace qstep::trainer
