// Defaults of the fused operations, built from their parts: a backend that overrides one must give
// the same bits.
#include "ops/ops.h"

namespace qstep::ops {

void Ops::residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                   const Tensor& x, const Tensor& delta, const Tensor& w,
                                   float eps) {
  add(sum, x, delta);
  rmsnorm_forward(y, rstd, sum, w, eps);
}

void Ops::residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                     const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                     const Tensor& w, const Tensor& b, float eps) {
  add(sum, x, delta);
  layernorm_forward(y, mean, rstd, sum, w, b, eps);
}

}  // namespace qstep::ops
