// What several ranks hold alike must stay alike: the weights of data-parallel ranks, and within a
// tensor group those that are not cut. A difference that no rank notices trains two models, and
// averages them; it comes from a bit that flipped in a memory, a link or a processor, or from a
// bug.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/backend/rank_groups.h"
#include "trainer/model/shard_plan.h"

namespace qstep::trainer {

class ReplicaCheck {
 public:
  // weight: the whole flat array of this rank. All of it outlives this.
  ReplicaCheck(const RankGroups& groups, const ShardPlan& plan, const ops::Tensor& weight)
      : groups_(groups), plan_(plan), weight_(weight) {}

  // Compares hashes (XXH3, 64 bits a bucket), behind step `step` and while nothing writes to the
  // weights; all ranks of the world together. Throws the same Error (corruption) on all, which
  // names the ranks and the part of the model. Does nothing where there is one rank.
  void run(ops::Ops& ops, int64_t step) const;

 private:
  // Of every bucket, from element `from(bucket)` of it on.
  template <class F>
  std::vector<uint64_t> hashes(ops::Ops& ops, F&& from) const;
  template <class F>
  std::string difference(parallel::Comm& group, const std::vector<uint64_t>& own, const char* what,
                         F&& world_rank) const;

  const RankGroups& groups_;
  const ShardPlan& plan_;
  const ops::Tensor& weight_;
};

}  // namespace qstep::trainer
