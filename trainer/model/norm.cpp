#include "trainer/model/norm.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::Tensor;

void Norm::forward(ops::Ops& ops, const Tensor& sum, const Tensor& y, const Stream& in,
                   const Tensor& amax) {
  const int64_t N = y.rows;
  const Tensor rstd = stats_.row_range(0, 1).col_range(0, N);
  const Tensor mean = stats_.row_range(1, 1).col_range(0, N);
  input_ = in.delta ? sum : in.x;
  if (kind_ == NormKind::kRms) {
    if (in.delta) {
      ops.residual_rmsnorm_forward(sum, y, rstd, in.x, in.delta, weight_, eps_, amax);
    } else {
      ops.rmsnorm_forward(y, rstd, in.x, weight_, eps_, amax);
    }
  } else {
    if (in.delta) {
      ops.residual_layernorm_forward(sum, y, mean, rstd, in.x, in.delta, weight_, bias_, eps_,
                                     amax);
    } else {
      ops.layernorm_forward(y, mean, rstd, in.x, weight_, bias_, eps_, amax);
    }
  }
}

void Norm::backward(ops::Ops& ops, const Tensor& dx, const Tensor& dw, const Tensor& db,
                    const Tensor& dy, Accumulate dx_mode, Accumulate grads,
                    const Tensor& amax) const {
  const int64_t N = dy.rows;
  const Tensor rstd = stats_.row_range(0, 1).col_range(0, N);
  const Tensor mean = stats_.row_range(1, 1).col_range(0, N);
  if (kind_ == NormKind::kRms) {
    ops.rmsnorm_backward(dx, dw, dy, input_, weight_, rstd, dx_mode, grads, amax);
  } else {
    ops.layernorm_backward(dx, dw, db, dy, input_, weight_, mean, rstd, dx_mode, grads, amax);
  }
}

}  // namespace qstep::trainer
