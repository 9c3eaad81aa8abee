#include "trainer/model/linear.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::Tensor;

void Linear::forward(ops::Ops& ops, const Tensor& y, const Tensor& x, const Tensor& amax) {
  ops.label(layer_, labels_.fprop);
  const OperandPair w_pair = operands_.weight(ops, weight_);
  if (role_ == LinearRole::kColumnParallel) group_->gather_rows(x);
  const OperandPair x_pair = operands_.input(ops, x, amax);
  // The sum over the ranks holds the bias once.
  const bool adds_bias = role_ != LinearRole::kRowParallel || group_->rank() == 0;
  ops.gemm(y, x_pair.rowwise, w_pair.rowwise, 1.0f, Accumulate::kNo, adds_bias ? bias_ : Tensor());
  if (role_ == LinearRole::kRowParallel) group_->sum_rows(y);
  x_wgrad_ = x_pair.columnwise;
  w_dgrad_ = w_pair.columnwise;
}

void Linear::backward(ops::Ops& ops, const Tensor& dx, const Tensor& dw, const Tensor& db,
                      const Tensor& dy, Accumulate grads, const Tensor& amax) const {
  const bool column = role_ == LinearRole::kColumnParallel, row = role_ == LinearRole::kRowParallel;
  ops.label(layer_, dx ? labels_.dgrad : labels_.wgrad);
  if (row) group_->gather_rows(dy);
  const OperandPair dy_pair = operands_.gradient(ops, dy, amax);
  if (dx) ops.gemm(dx, dy_pair.rowwise, w_dgrad_, 1.0f, Accumulate::kNo);
  if (dx && column) group_->begin_sum_rows(dx);
  ops.label(layer_, labels_.wgrad);
  ops.gemm(dw, dy_pair.columnwise, x_wgrad_, 1.0f, grads);
  // A row-parallel layer's bias is every rank's: each has the gradient of its own rows.
  if (bias_) ops.bias_backward(db, row ? group_->own_rows(dy) : dy, grads);
  if (column) group_->wait();
}

}  // namespace qstep::trainer
