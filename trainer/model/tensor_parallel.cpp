#include "trainer/model/tensor_parallel.h"

namespace qstep::trainer {

using ops::Tensor;

TensorParallel::TensorParallel(parallel::Comm& group, Timeline& timer, Recordings& recordings)
    : place_{.size = group.size(), .rank = group.rank()},
      group_(&group),
      timer_(&timer),
      recordings_(&recordings),
      bounds_(static_cast<size_t>(group.size()) + 1) {}

parallel::Bounds TensorParallel::bounds_of(const Tensor& x) {
  ops::check(x.rows % size() == 0, "tensor parallel: rows do not come out even");
  for (size_t r = 0; r < bounds_.size(); ++r) {
    bounds_[r] = static_cast<int64_t>(r) * n_own(x.rows) * x.cols;
  }
  return bounds_;
}

void TensorParallel::wait_for(parallel::Comm::Ticket ticket) {
  timer_->wait(Category::kTpComm, [&] { group_->wait(ticket); });
}

void TensorParallel::gather_rows(const Tensor& x) {
  if (size() == 1) return;
  recordings_->unrecorded([this, x] { wait_for(group_->all_gather(x, bounds_of(x))); });
}

void TensorParallel::sum_rows(const Tensor& x) {
  begin_sum_rows(x);
  wait();
}

void TensorParallel::begin_sum_rows(const Tensor& x) {
  if (size() == 1) return;
  recordings_->unrecorded([this, x] { begun_ = group_->reduce_scatter(x, bounds_of(x)); });
  waits_ = true;
}

void TensorParallel::wait() {
  if (!waits_) return;
  recordings_->unrecorded([this] { wait_for(begun_); });
  waits_ = false;
}

void TensorParallel::sum(const Tensor& x) {
  if (size() == 1) return;
  recordings_->unrecorded([this, x] { wait_for(group_->all_reduce(x, parallel::Reduce::kSum)); });
}

void TensorParallel::max(const Tensor& bits) {
  if (size() == 1) return;
  recordings_->unrecorded(
      [this, bits] { wait_for(group_->all_reduce(bits, parallel::Reduce::kMax)); });
}

}  // namespace qstep::trainer
