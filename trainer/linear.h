// The quantized linear layer: three GEMMs, and the whole of mixed precision in the trainer.
//
//   y  [N,O] = x.rowwise [N,I] w.rowwise [O,I]^T (+ bias)       fprop
//   dx [N,I] = dy.rowwise[N,O] w.columnwise[I,O]^T              dgrad
//   dw [O,I] = dy.columnwise[O,N] x.columnwise[I,N]^T           wgrad
//
// Every format goes through these three calls; what differs is how an operand is made
// (linear_operands.h).
#pragma once

#include "ops/ops.h"
#include "trainer/linear_operands.h"

namespace qstep::trainer {

class Linear {
 public:
  Linear() = default;
  // weight [O, I] in the compute type; bias [1, O] or empty. Without operands of its own the layer
  // computes with the tensors as they are.
  Linear(const ops::Tensor& weight, const ops::Tensor& bias, LinearOperands operands = {})
      : weight_(weight), bias_(bias), operands_(std::move(operands)) {}

  // Keeps the operands that backward will read: where they are views of x, x must stay as it is.
  void forward(ops::Ops& ops, const ops::Tensor& y, const ops::Tensor& x);

  // dx may be empty (nobody needs it). dw [O, I] and db [1, O] are FP32, db empty without a bias
  // and made from dy itself.
  void backward(ops::Ops& ops, const ops::Tensor& dx, const ops::Tensor& dw, const ops::Tensor& db,
                const ops::Tensor& dy, ops::Accumulate grads) const;

 private:
  ops::Tensor weight_, bias_;
  LinearOperands operands_;
  ops::Operand x_wgrad_, w_dgrad_;
};

}  // namespace qstep::trainer
