#include "trainer/data_parallel.h"

#include <exception>

namespace qstep::trainer {

DataParallel::DataParallel(parallel::Comm& comm, const ShardPlan& plan, OptimizerState state,
                           const ops::Tensor& gradient, const ops::Tensor& weight)
    : comm_(comm),
      buckets_(plan.buckets),
      state_(state),
      gradient_(gradient),
      weight_(weight),
      gathers_(plan.buckets.size()) {}

DataParallel::~DataParallel() {
  try {
    wait(reduction_);
    wait_for_weights();
  } catch (const std::exception&) {  // a dead peer; whoever waited for it before knows
  }
}

void DataParallel::reduce_gradient(int64_t bucket) {
  if (comm_.size() == 1) return;
  const Bucket& b = buckets_[static_cast<size_t>(bucket)];
  const ops::Tensor part = gradient_.col_range(b.first, b.size);
  reduction_ = {state_ == OptimizerState::kSharded ? comm_.reduce_scatter(part, b.bounds)
                                                   : comm_.all_reduce(part, parallel::Reduce::kSum),
                true};
}

void DataParallel::gather_weights(int64_t bucket) {
  if (comm_.size() == 1 || state_ == OptimizerState::kReplicated) return;
  const Bucket& b = buckets_[static_cast<size_t>(bucket)];
  gathers_[static_cast<size_t>(bucket)] = {
      comm_.all_gather(weight_.col_range(b.first, b.size), b.bounds), true};
}

void DataParallel::wait(Pending& pending) {
  if (!pending.waits) return;
  comm_.wait(pending.ticket);
  pending.waits = false;
}

void DataParallel::wait_for_gradients(PhaseTimer& timer) {
  if (!reduction_.waits) return;
  const Phase before = timer.enter(Phase::kComm);
  wait(reduction_);
  timer.enter(before);
}

void DataParallel::wait_for_weights(int64_t bucket, PhaseTimer& timer) {
  Pending& gather = gathers_[static_cast<size_t>(bucket)];
  if (!gather.waits) return;
  const Phase before = timer.enter(Phase::kComm);
  wait(gather);
  timer.enter(before);
}

void DataParallel::wait_for_weights() {
  for (Pending& gather : gathers_) wait(gather);
}

}  // namespace qstep::trainer
