// The ranks of a run as a mesh, and this rank's groups in it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "parallel/mesh.h"

namespace qstep::trainer {

// The same ranks over two kinds of memory.
struct Worlds {
  // What is in memory of the host: files, times, agreement.
  parallel::Comm& hosts;
  // Tensors of the backend. The same Comm where these are in memory of the host, too.
  parallel::Comm& devices;

  Worlds(parallel::Comm& both) : hosts(both), devices(both) {}
  Worlds(parallel::Comm& of_hosts, parallel::Comm& of_devices)
      : hosts(of_hosts), devices(of_devices) {}
};

// What a group of ranks is, and this rank's place in it.
struct NamedGroup {
  std::string name;  // "data", "tensor", "world"
  int rank = 0, size = 1;
};
using NamedGroups = std::map<std::string, NamedGroup>;  // by Comm::group()

// One world and this rank's groups in it.
class MeshGroups {
 public:
  // A collective of `world`, which outlives this.
  MeshGroups(parallel::Comm& world, const parallel::Mesh& mesh) : world_(world) {
    if (mesh.tensor == 1) return;
    tensor_ = parallel::split_tensor(world, mesh);
    data_ = parallel::split_data(world, mesh);
  }

  parallel::Comm& world() const { return world_; }
  // Ranks with the same part of the model and other micro-batches.
  parallel::Comm& data() const { return data_ ? *data_ : world_; }
  // Ranks with the other parts of the model and the same micro-batches; null where this one has
  // all of it.
  parallel::Comm* tensor() const { return tensor_.get(); }

  void name(NamedGroups& groups) const {
    const auto add = [&](const char* name, const parallel::Comm& group) {
      groups[std::string(group.group())] = {name, group.rank(), group.size()};
    };
    add("world", world_);
    if (tensor_) add("tensor", *tensor_);
    add("data", data());
  }

 private:
  parallel::Comm& world_;
  std::unique_ptr<parallel::Comm> tensor_, data_;
};

class RankGroups {
 public:
  // A collective of both worlds, which outlive this; tensor divides their size.
  RankGroups(const Worlds& worlds, int tensor)
      : mesh_(parallel::make_mesh(worlds.hosts.size(), tensor)), hosts_(worlds.hosts, mesh_) {
    if (&worlds.devices != &worlds.hosts) devices_.emplace(worlds.devices, mesh_);
  }

  const parallel::Mesh& mesh() const { return mesh_; }
  // For memory of the host, and for tensors of the backend: see Worlds.
  const MeshGroups& hosts() const { return hosts_; }
  const MeshGroups& devices() const { return devices_ ? *devices_ : hosts_; }

  // All of this rank's; a world is "data" where it is one data-parallel group.
  NamedGroups by_name() const {
    NamedGroups groups;
    hosts_.name(groups);
    if (devices_) devices_->name(groups);
    return groups;
  }

  // Of all groups of both worlds.
  void observe(parallel::CollectiveObserver* observer) const {
    hosts_.world().observe(observer);
    if (devices_) devices_->world().observe(observer);
  }

 private:
  parallel::Mesh mesh_;
  MeshGroups hosts_;
  std::optional<MeshGroups> devices_;
};

}  // namespace qstep::trainer
