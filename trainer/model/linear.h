// The quantized linear layer: three GEMMs, and the whole of mixed precision in the trainer.
//
//   y  [N,O] = x.rowwise [N,I] w.rowwise [O,I]^T (+ bias)       fprop
//   dx [N,I] = dy.rowwise[N,O] w.columnwise[I,O]^T              dgrad
//   dw [O,I] = dy.columnwise[O,N] x.columnwise[I,N]^T           wgrad
//
// Every format goes through these three calls; what differs is how an operand is made
// (linear_operands.h).
//
// A tensor-parallel group shares a layer in one of two ways (tensor_parallel.h). Column-parallel:
// each rank has O/t of the features; it fills its own rows of x, and finds the sum of dx there.
// Row-parallel: each rank has I/t of the features; it finds the sum of y in its own rows, and fills
// those of dy.
#pragma once

#include "ops/ops.h"
#include "trainer/model/linear_operands.h"
#include "trainer/model/tensor_parallel.h"
#include "trainer/timing/labels.h"

namespace qstep::trainer {

enum class LinearRole : uint8_t { kWhole, kColumnParallel, kRowParallel };

class Linear {
 public:
  Linear() = default;
  // weight [O, I] in the compute type; bias [1, O] or empty. Without operands of its own the layer
  // computes with the tensors as they are.
  Linear(const ops::Tensor& weight, const ops::Tensor& bias, LinearOperands operands = {})
      : weight_(weight), bias_(bias), operands_(std::move(operands)) {}
  // The same for this rank's part of a layer that `group` shares; it outlives this.
  Linear(const ops::Tensor& weight, const ops::Tensor& bias, LinearOperands operands,
         LinearRole role, TensorParallel& group)
      : weight_(weight),
        bias_(bias),
        operands_(std::move(operands)),
        role_(group.size() == 1 ? LinearRole::kWhole : role),
        group_(&group) {}

  // How its calls are labelled, in which block (-1: none).
  void set_labels(int64_t layer, const LinearLabels& labels) {
    layer_ = layer;
    labels_ = labels;
  }

  // Where whoever makes x (or dy) of the running pass shall leave its amax, for forward (backward)
  // to be given then; empty: nobody reads it.
  ops::Tensor wanted_amax(LinearTensor tensor) const { return operands_.wanted_amax(tensor); }

  // Keeps the operands that backward will read: where they are views of x, x must stay as it is.
  // amax: that of x, where it was made with it, or empty.
  void forward(ops::Ops& ops, const ops::Tensor& y, const ops::Tensor& x,
               const ops::Tensor& amax = {});

  // dx may be empty (nobody needs it). dw [O, I] and db [1, O] are FP32, db empty without a bias
  // and made from dy itself. amax: that of dy, where it was made with it, or empty.
  void backward(ops::Ops& ops, const ops::Tensor& dx, const ops::Tensor& dw, const ops::Tensor& db,
                const ops::Tensor& dy, ops::Accumulate grads, const ops::Tensor& amax = {}) const;

 private:
  ops::Tensor weight_, bias_;
  LinearOperands operands_;
  LinearRole role_ = LinearRole::kWhole;
  TensorParallel* group_ = nullptr;
  int64_t layer_ = -1;
  LinearLabels labels_;
  ops::Operand x_wgrad_, w_dgrad_;
};

}  // namespace qstep::trainer
