#include "trainer/linear.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::columnwise;
using ops::rowwise;
using ops::Tensor;

void Linear::forward(ops::Ops& ops, const Tensor& y, const Tensor& x) {
  ops.gemm(y, rowwise(x), rowwise(weight_), 1.0f, Accumulate::kNo, bias_);
  x_wgrad_ = columnwise(x);
}

void Linear::backward(ops::Ops& ops, const Tensor& dx, const Tensor& dw, const Tensor& db,
                      const Tensor& dy, Accumulate grads) const {
  if (dx) ops.gemm(dx, rowwise(dy), columnwise(weight_), 1.0f, Accumulate::kNo);
  ops.gemm(dw, columnwise(dy), x_wgrad_, 1.0f, grads);
  if (bias_) ops.bias_backward(db, dy, grads);
}

}  // namespace qstep::trainer
