#include "trainer/step/data_parallel.h"

#include <exception>

namespace qstep::trainer {

ops::Tensor lay_out_staging(ops::Arena& arena, const ShardPlan& plan, GradientType type,
                            int n_ranks) {
  if (type == GradientType::kFp32 || n_ranks == 1) return {};
  return arena.take("gradients in transit", ops::Dtype::kBf16, 1, plan.total);
}

DataParallel::DataParallel(ops::Ops& ops, parallel::Comm& comm, const ShardPlan& plan,
                           OptimizerState state, const ops::Tensor& gradient,
                           const ops::Tensor& weight, const ops::Tensor& staging)
    : ops_(ops),
      comm_(comm),
      buckets_(plan.buckets),
      owned_(plan.owned),
      state_(state),
      gradient_(gradient),
      weight_(weight),
      staging_(staging),
      gathers_(plan.buckets.size()) {}

DataParallel::~DataParallel() {
  try {
    wait(reduction_);
    wait_for_weights();
    comm_.synchronize();             // the memory goes
  } catch (const std::exception&) {  // a dead peer; whoever waited for it before knows
  }
}

void DataParallel::reduce_gradient(int64_t bucket) {
  if (comm_.size() == 1) return;
  const Bucket& b = buckets_[static_cast<size_t>(bucket)];
  ops::Tensor sent = gradient_.col_range(b.first, b.size);
  if (staging_) {
    const ops::Tensor rounded = staging_.col_range(b.first, b.size);
    ops_.cast(rounded, sent);
    sent = rounded;
  }
  reduction_ = {state_ == OptimizerState::kSharded ? comm_.reduce_scatter(sent, b.bounds)
                                                   : comm_.all_reduce(sent, parallel::Reduce::kSum),
                true};
}

void DataParallel::gather_weights(int64_t bucket) {
  if (!gathers_weights()) return;
  const Bucket& b = buckets_[static_cast<size_t>(bucket)];
  gathers_[static_cast<size_t>(bucket)] = {
      comm_.all_gather(weight_.col_range(b.first, b.size), b.bounds), true};
}

void DataParallel::wait(Pending& pending) {
  if (!pending.waits) return;
  comm_.wait(pending.ticket);
  pending.waits = false;
}

void DataParallel::wait_for_gradients(Timeline& timer) {
  if (!reduction_.waits) return;
  timer.wait(Category::kGradReduce, [&] { wait(reduction_); });
  if (!staging_) return;
  for (const OwnedRun& run : owned_) {
    ops_.cast(gradient_.col_range(run.first, run.size), staging_.col_range(run.first, run.size));
  }
}

void DataParallel::wait_for_weights(int64_t bucket, Timeline& timer) {
  Pending& gather = gathers_[static_cast<size_t>(bucket)];
  if (!gather.waits) return;
  timer.wait(Category::kParamGather, [&] { wait(gather); });
}

void DataParallel::wait_for_weights() {
  for (Pending& gather : gathers_) wait(gather);
}

}  // namespace qstep::trainer
