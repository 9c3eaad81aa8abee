// Delayed scaling (numerics 7.2): the FP8 scale of every linear layer's x, w and dy from the amaxes
// of earlier steps. A part of the training state: checkpoints hold it.
#pragma once

#include <vector>

#include "ops/ops.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/layer_precision.h"

namespace qstep::trainer {

using precision::kLinearTensorNames;
using precision::LinearTensor;
inline constexpr auto kTensorsPerLinear = static_cast<int64_t>(kLinearTensorNames.size());

// Row of the state, and of every other table that has one entry per tensor.
constexpr int64_t tensor_row(int64_t module, LinearTensor tensor) {
  return module * kTensorsPerLinear + static_cast<int64_t>(tensor);
}

// Checkpoint names of the state.
inline const std::string kDelayedHistoryName = "delayed/history";
inline const std::string kDelayedScaleName = "delayed/scale";
inline const std::string kDelayedCodeName = "delayed/largest_code";

// What a recipe without delayed scaling leaves empty. One row per tensor of every linear layer,
// whether its scale is delayed or not.
struct DelayedTensors {
  ops::Tensor history;      // [tensors, steps]
  ops::Tensor scale, amax;  // [1, tensors]
  // [1, tensors]: that of the format which the scale is for, 448 or 57344; 0: none was delayed yet.
  ops::Tensor largest_code;

  // Evaluation has neither history nor amax.
  static DelayedTensors lay_out(ops::Arena& arena, const PrecisionPlan& plan,
                                const ModelConfig& model, Purpose purpose);
};

class DelayedState {
 public:
  DelayedState() = default;
  // Scales 1, histories 0.
  DelayedState(ops::Ops& ops, const PrecisionPlan& plan, const DelayedTensors& tensors);

  // [1, tensors]: the largest amax of this rank's micro-batches of a running step; empty where
  // nothing is delayed. All ranks' maximum has to be in it when the step ends.
  const ops::Tensor& amaxes() const { return t_.amax; }
  // [1, 1] each, for the quantizer.
  ops::Tensor scale(int64_t row) const { return t_.scale.col_range(row, 1); }
  ops::Tensor amax(int64_t row) const { return t_.amax.col_range(row, 1); }

  // Another phase of the plan: the tensors may have other formats. The scale of one that has is
  // multiplied by new largest code / old one, at most FLT_MAX: what the amaxes of earlier steps ask
  // for, exactly, as the ratio is a power of 2 (57344 / 448 = 128).
  void enter_phase(ops::Ops& ops, size_t phase);
  // The end of an optimizer step: the largest amax of its micro-batches enters the history. A step
  // without an update (NaN factor, [1]) leaves no trace.
  void end_step(ops::Ops& ops, size_t phase, const ops::Tensor& factor);

  // Of what was laid out; none where nothing is delayed. Between steps amax is 0.
  std::vector<NamedTensor> named_tensors() const;

 private:
  DelayedTensors t_;
  precision::DelayedScaling rule_;
  // By phase and row, 0: not delayed in it; empty: none is.
  std::vector<std::vector<float>> largest_code_;
  std::vector<float> host_scale_, host_code_;
};

}  // namespace qstep::trainer
