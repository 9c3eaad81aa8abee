// A step's traffic with the other data-parallel ranks, bucket by bucket and beside the computation:
// gradients to the ranks that own them, updated weights back to all.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/tensor.h"
#include "parallel/comm.h"
#include "trainer/config.h"
#include "trainer/shard_plan.h"
#include "trainer/timeline.h"

namespace qstep::trainer {

class DataParallel {
 public:
  // `comm` outlives this; gradient and weight are whole flat arrays.
  DataParallel(parallel::Comm& comm, const ShardPlan& plan, OptimizerState state,
               const ops::Tensor& gradient, const ops::Tensor& weight);
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;
  ~DataParallel();  // waits for what is under way, as far as it still can end

  int rank() const { return comm_.rank(); }
  int size() const { return comm_.size(); }
  parallel::Comm& comm() { return comm_; }

  // The rank's gradient of the bucket is final: sums it over the ranks, where it is owned.
  void reduce_gradient(int64_t bucket);
  // The owned weights of the bucket are updated: brings them to all.
  void gather_weights(int64_t bucket);

  // Time spent waiting is Phase::kComm; then the timer's open phase goes on.
  void wait_for_gradients(PhaseTimer& timer);
  void wait_for_weights(int64_t bucket, PhaseTimer& timer);
  void wait_for_weights();

 private:
  struct Pending {
    parallel::Comm::Ticket ticket = 0;
    bool waits = false;
  };
  void wait(Pending& pending);

  parallel::Comm& comm_;
  std::vector<Bucket> buckets_;
  OptimizerState state_;
  ops::Tensor gradient_, weight_;
  std::vector<Pending> gathers_;  // by bucket
  Pending reduction_;             // the last one
};

}  // namespace qstep::trainer
