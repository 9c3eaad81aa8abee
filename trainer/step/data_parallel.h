// A step's traffic with the other data-parallel ranks, bucket by bucket and beside the computation:
// gradients to the ranks that own them, updated weights back to all.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/ops.h"
#include "parallel/comm.h"
#include "trainer/config/config.h"
#include "trainer/model/shard_plan.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// [1, total] BF16, what gradients are sent from and received in; empty where they travel as they
// are (FP32), or where there is no other rank.
ops::Tensor lay_out_staging(ops::Arena& arena, const ShardPlan& plan, GradientType type,
                            int n_ranks);

class DataParallel {
 public:
  // `ops` and `comm` outlive this; gradient (FP32) and weight are whole flat arrays. With `staging`
  // the sum over the ranks is bf16(sum_r bf16(gradient_r)), added in FP32; one rank has nothing to
  // send and rounds nothing.
  DataParallel(ops::Ops& ops, parallel::Comm& comm, const ShardPlan& plan, OptimizerState state,
               const ops::Tensor& gradient, const ops::Tensor& weight,
               const ops::Tensor& staging = {});
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;
  ~DataParallel();  // waits for what is under way, as far as it still can end

  int rank() const { return comm_.rank(); }
  int size() const { return comm_.size(); }
  parallel::Comm& comm() { return comm_; }
  // Whether updated weights travel: where the ranks share the optimizer's state.
  bool gathers_weights() const { return comm_.size() > 1 && state_ == OptimizerState::kSharded; }

  // The rank's gradient of the bucket is final: sums it over the ranks, where it is owned. There it
  // is complete after wait_for_gradients(); the rest of it is of no use any more.
  void reduce_gradient(int64_t bucket);
  // The owned weights of the bucket are updated: brings them to all.
  void gather_weights(int64_t bucket);

  // Time spent waiting counts as Category::kGradReduce and kParamGather.
  void wait_for_gradients(Timeline& timer);
  void wait_for_weights(int64_t bucket, Timeline& timer);
  void wait_for_weights();

 private:
  struct Pending {
    parallel::Comm::Ticket ticket = 0;
    bool waits = false;
  };
  void wait(Pending& pending);

  ops::Ops& ops_;
  parallel::Comm& comm_;
  std::vector<Bucket> buckets_;
  std::vector<OwnedRun> owned_;  // by bucket
  OptimizerState state_;
  ops::Tensor gradient_, weight_, staging_;
  std::vector<Pending> gathers_;  // by bucket
  Pending reduction_;             // the last one
};

}  // namespace qstep::trainer
