// Defaults of calls that others make up: a backend that overrides one must give the same bits.
#include "ops/ops.h"

namespace qstep::ops {

void Ops::download_all(std::span<const HostCopy> copies) {
  for (const HostCopy& copy : copies) download(copy.host, copy.src);
}

void Ops::residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                   const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                                   const Tensor& amax) {
  add(sum, x, delta);
  rmsnorm_forward(y, rstd, sum, w, eps, amax);
}

void Ops::residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                     const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                     const Tensor& w, const Tensor& b, float eps,
                                     const Tensor& amax) {
  add(sum, x, delta);
  layernorm_forward(y, mean, rstd, sum, w, b, eps, amax);
}

}  // namespace qstep::ops
