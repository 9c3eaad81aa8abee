// The language-model head and its loss: logits = y head^T and cross-entropy, in chunks of rows, so
// that at most one chunk of logits exists, and its gradient takes its place.
#pragma once

#include <cstdint>

#include "ops/ops.h"
#include "trainer/linear.h"
#include "trainer/model_config.h"
#include "trainer/timeline.h"

namespace qstep::trainer {

// Rows per chunk: as many as fit kLogitBytes, in equal parts. A pure function of the shapes, as the
// order of the sums in dw depends on it.
int64_t head_chunk_rows(const ModelConfig& model, int64_t n_tokens, ops::Dtype dtype);

class Head {
 public:
  // weight [Vp, C]; logits [chunk rows, Vp].
  Head(const ModelConfig& model, const ops::Tensor& weight, const ops::Tensor& logits)
      : vocab_size_(model.vocab_size), linear_(weight, {}), logits_(logits) {}

  // loss[n] of y[n] against targets[n].
  void forward(ops::Ops& ops, const ops::Tensor& loss, const ops::Tensor& y,
               const ops::Tensor& targets);

  // The same with gradients of scale * sum of the losses: dy and dw (+)=. Forward and backward of a
  // chunk follow each other, hence the timer.
  void forward_backward(ops::Ops& ops, const ops::Tensor& loss, const ops::Tensor& dy,
                        const ops::Tensor& dw, const ops::Tensor& y, const ops::Tensor& targets,
                        float scale, ops::Accumulate grads, PhaseTimer& timer);

  // Logits of at most one chunk of rows, for sampling: a view of [rows, V].
  ops::Tensor logits(ops::Ops& ops, const ops::Tensor& y);

 private:
  int64_t vocab_size_;
  Linear linear_;
  ops::Tensor logits_;
};

}  // namespace qstep::trainer
