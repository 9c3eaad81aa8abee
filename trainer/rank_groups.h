// The ranks of a run as a mesh, and this rank's groups in it.
#pragma once

#include <memory>

#include "parallel/mesh.h"

namespace qstep::trainer {

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

 private:
  parallel::Mesh mesh_;
  parallel::Comm& world_;
  std::unique_ptr<parallel::Comm> tensor_, data_;
};

}  // namespace qstep::trainer
