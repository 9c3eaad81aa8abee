// Delayed scaling (numerics 7.2): the FP8 scale of every linear layer's x, w and dy from the amaxes
// of earlier steps. A part of the training state: checkpoints hold it.
#pragma once

#include <vector>

#include "ops/ops.h"
#include "trainer/checkpoint.h"
#include "trainer/layer_precision.h"

namespace qstep::trainer {

// The tensors of a linear layer, in the order of their slots in random bits (numerics 4.3).
enum class LinearTensor : uint8_t { kX, kW, kDy };
inline constexpr std::array<std::string_view, 3> kLinearTensorNames{"x", "w", "dy"};
inline constexpr auto kTensorsPerLinear = static_cast<int64_t>(kLinearTensorNames.size());

// Row of the state, and of every other table that has one entry per tensor.
constexpr int64_t tensor_row(int64_t module, LinearTensor tensor) {
  return module * kTensorsPerLinear + static_cast<int64_t>(tensor);
}

enum class Purpose : uint8_t { kTraining, kEvaluation };

// Checkpoint names of the state.
inline const std::string kDelayedHistoryName = "delayed/history";
inline const std::string kDelayedScaleName = "delayed/scale";

// What a recipe without delayed scaling leaves empty. One row per tensor of every linear layer,
// whether its scale is delayed or not.
struct DelayedTensors {
  ops::Tensor history;       // [tensors, steps]
  ops::Tensor scale, amax;   // [1, tensors]
  ops::Tensor largest_code;  // [1, tensors]: 448 or 57344 in this phase

  // Evaluation has the scales alone.
  static DelayedTensors lay_out(ops::Arena& arena, const PrecisionPlan& plan,
                                const ModelConfig& model, Purpose purpose);
};

class DelayedState {
 public:
  DelayedState() = default;
  // Scales 1, histories 0.
  DelayedState(ops::Ops& ops, const PrecisionPlan& plan, const DelayedTensors& tensors);

  // [1, 1] each, for the quantizer.
  ops::Tensor scale(int64_t row) const { return t_.scale.col_range(row, 1); }
  ops::Tensor amax(int64_t row) const { return t_.amax.col_range(row, 1); }

  // Another phase of the plan: the tensors may have other formats.
  void enter_phase(ops::Ops& ops, size_t phase);
  // The end of an optimizer step: the largest amax of its micro-batches enters the history. A
  // skipped step leaves no trace.
  void end_step(ops::Ops& ops, size_t phase, bool skipped);

  // Of what was laid out; none where nothing is delayed. Between steps amax is 0.
  std::vector<NamedTensor> named_tensors() const;

 private:
  DelayedTensors t_;
  precision::DelayedScaling rule_;
  std::vector<std::vector<float>> largest_code_;  // by phase and row; empty: none is delayed
};

}  // namespace qstep::trainer
