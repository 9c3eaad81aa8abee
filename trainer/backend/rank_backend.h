// What a rank computes on, and what carries its tensors to the other ranks.
#pragma once

#include <memory>
#include <string>

#include "ops/ops.h"
#include "parallel/comm.h"
#include "trainer/backend/rank_groups.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

class RankBackend {
 public:
  // All of `hosts` together, which outlives this, on the device that choose_device gave them.
  // `observer` hears of the collectives between GPUs, and may end them; null: nobody does.
  RankBackend(Device device, parallel::Comm& hosts,
              parallel::CollectiveObserver* observer = nullptr);

  ops::Ops& ops() const { return *ops_; }
  Worlds worlds() const { return {hosts_, gpus_ ? *gpus_ : hosts_}; }

  // For people, of a run of this configuration: backend_text, and what carries tensors of GPUs.
  std::string text(const Config& config) const;

 private:
  parallel::Comm& hosts_;
  std::unique_ptr<ops::Ops> ops_;
  std::unique_ptr<parallel::Comm> gpus_;  // null: tensors are in memory of the host, or one rank's
};

}  // namespace qstep::trainer
