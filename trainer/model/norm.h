// RMSNorm or LayerNorm with bias, as the model chooses, reading the residual stream.
#pragma once

#include "ops/ops.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer {

// The residual stream between two layers: its value is x + delta. The addition is left to the norm
// that reads it next, which does both in one pass. delta is empty at the start.
struct Stream {
  ops::Tensor x;
  ops::Tensor delta;
};

class Norm {
 public:
  Norm() = default;
  // weight [1, C]; bias [1, C] of LayerNorm. stats [2, N]: row 0 rstd, row 1 mean (LayerNorm).
  Norm(NormKind kind, float eps, const ops::Tensor& weight, const ops::Tensor& bias,
       const ops::Tensor& stats)
      : kind_(kind), eps_(eps), weight_(weight), bias_(bias), stats_(stats) {}

  // sum = in.x + in.delta, y = norm(sum). Both must stay as they are until backward. When there is
  // no delta, sum is not written and the norm reads in.x. amax: of y (ops.h), or empty.
  void forward(ops::Ops& ops, const ops::Tensor& sum, const ops::Tensor& y, const Stream& in,
               const ops::Tensor& amax = {});

  // dx += d norm: the gradient joins the one that flows along the stream. dw, db (+)= as `grads`
  // says. amax: of dx then, or empty.
  void backward(ops::Ops& ops, const ops::Tensor& dx, const ops::Tensor& dw, const ops::Tensor& db,
                const ops::Tensor& dy, ops::Accumulate dx_mode, ops::Accumulate grads,
                const ops::Tensor& amax = {}) const;

 private:
  NormKind kind_ = NormKind::kRms;
  float eps_ = 0;
  ops::Tensor weight_, bias_, stats_;
  ops::Tensor input_;  // what the norm read, for backward
};

}  // namespace qstep::trainer
