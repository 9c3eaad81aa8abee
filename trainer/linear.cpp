#include "trainer/linear.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::Tensor;

void Linear::forward(ops::Ops& ops, const Tensor& y, const Tensor& x) {
  const OperandPair w_pair = operands_.weight(ops, weight_);
  const OperandPair x_pair = operands_.input(ops, x);
  ops.gemm(y, x_pair.rowwise, w_pair.rowwise, 1.0f, Accumulate::kNo, bias_);
  x_wgrad_ = x_pair.columnwise;
  w_dgrad_ = w_pair.columnwise;
}

void Linear::backward(ops::Ops& ops, const Tensor& dx, const Tensor& dw, const Tensor& db,
                      const Tensor& dy, Accumulate grads) const {
  const OperandPair dy_pair = operands_.gradient(ops, dy);
  if (dx) ops.gemm(dx, dy_pair.rowwise, w_dgrad_, 1.0f, Accumulate::kNo);
  ops.gemm(dw, dy_pair.columnwise, x_wgrad_, 1.0f, grads);
  if (bias_) ops.bias_backward(db, dy, grads);
}

}  // namespace qstep::trainer
