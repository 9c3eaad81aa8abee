// The language-model head and its loss: logits = y head^T and cross-entropy, in chunks of rows, so
// that at most one chunk of logits exists, and its gradient takes its place.
//
// The ranks of a tensor-parallel group share the vocabulary: each has the logits of its own tokens,
// and tells the others three numbers per row of them.
#pragma once

#include <cstdint>

#include "ops/ops.h"
#include "trainer/config/model_config.h"
#include "trainer/model/linear.h"
#include "trainer/model/tensor_parallel.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// Of one chunk of rows.
struct HeadActivations {
  ops::Tensor logits;  // [rows, Vp/t]
  // Where the head is shared: ops.cross_entropy_part of all ranks [1, 3 t rows] FP32, and lse
  // [1, rows] FP32.
  ops::Tensor parts, lse;
};

// Rows per chunk: as many as fit kLogitBytes, in equal parts. A pure function of the shapes, as the
// order of the sums in dw depends on it. n_columns: of this rank's logits.
int64_t head_chunk_rows(int64_t n_columns, int64_t n_tokens, ops::Dtype dtype);

// tensor: ranks that share the model.
HeadActivations lay_out_head(ops::Arena& arena, const ModelConfig& model, int64_t n_tokens,
                             ops::Dtype dtype, int64_t tensor);

class Head {
 public:
  // weight [Vp/t, C]: this rank's rows of it; group outlives this.
  Head(const ModelConfig& model, const ops::Tensor& weight, const HeadActivations& activations,
       TensorParallel& group)
      : vocab_size_(model.vocab_size),
        first_token_(group.rank() * weight.rows),
        linear_(weight, {}),
        a_(activations),
        group_(&group) {
    linear_.set_labels(-1, kHeadLabels);
  }

  // loss[n] of y[n] against targets[n]. Of y [N, C], this rank's own rows are read.
  void forward(ops::Ops& ops, const ops::Tensor& loss, const ops::Tensor& y,
               const ops::Tensor& targets);

  // The same with gradients of scale * sum of the losses: dy (own rows) and dw (+)=. Forward and
  // backward of a chunk follow each other, hence the timer.
  void forward_backward(ops::Ops& ops, const ops::Tensor& loss, const ops::Tensor& dy,
                        const ops::Tensor& dw, const ops::Tensor& y, const ops::Tensor& targets,
                        float scale, ops::Accumulate grads, Timeline& timer);

  // Logits of at most one chunk of rows, for sampling: a view of [rows, V]. Not of a shared head.
  ops::Tensor logits(ops::Ops& ops, const ops::Tensor& y);

 private:
  bool shared() const { return group_->size() > 1; }
  void join_loss(ops::Ops& ops, const ops::Tensor& loss, const ops::Tensor& lse,
                 const ops::Tensor& logits, const ops::Tensor& targets);

  int64_t vocab_size_, first_token_;
  Linear linear_;
  HeadActivations a_;
  TensorParallel* group_;
};

}  // namespace qstep::trainer
