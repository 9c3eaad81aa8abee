#include "trainer/model/delayed_state.h"

#include <algorithm>
#include <limits>

#include "precision/element_format.h"

namespace qstep::trainer {

using ops::Dtype;
using precision::AmaxScope;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantFormat;
using precision::QuantSpec;

namespace {

// Of the tensor's delayed operands, which have one format (precision::problems); 0: none is.
float largest_code(const OperandTable& table, const precision::TensorOperands& tensor) {
  for (const OperandSlot slot : {tensor.row, tensor.column}) {
    const QuantSpec& spec = table[slot];
    if (!spec.quantized() || spec.amax != AmaxScope::kDelayed) continue;
    const bool e5m2 = spec.format == QuantFormat::kFp8E5m2;
    return precision::traits(e5m2 ? precision::ElementFormat::kE5m2
                                  : precision::ElementFormat::kE4m3)
        .max;
  }
  return 0;
}

}  // namespace

DelayedTensors DelayedTensors::lay_out(ops::Arena& arena, const PrecisionPlan& plan,
                                       const ModelConfig& model, Purpose purpose) {
  DelayedTensors t;
  if (!plan.has_delayed()) return t;
  const int64_t n = n_modules(model) * kTensorsPerLinear;
  const auto take = [&](int64_t rows, int64_t cols) {
    return arena.take("delayed scales", Dtype::kF32, rows, cols);
  };
  t.scale = take(1, n);
  t.largest_code = take(1, n);
  if (purpose == Purpose::kEvaluation) return t;
  t.history = take(n, plan.delayed.history);
  t.amax = take(1, n);
  return t;
}

DelayedState::DelayedState(ops::Ops& ops, const PrecisionPlan& plan, const DelayedTensors& tensors)
    : t_(tensors), rule_(plan.delayed) {
  if (!t_.scale) return;
  host_scale_.assign(static_cast<size_t>(t_.scale.size()), 1.0f);
  host_code_.assign(host_scale_.size(), 0.0f);
  ops.upload(t_.scale, host_scale_.data());
  ops.upload(t_.largest_code, host_code_.data());
  for (const PrecisionPhase& phase : plan.phases) {
    std::vector<float>& row = largest_code_.emplace_back();
    if (!phase.has_delayed()) continue;
    for (const OperandTable& table : phase.tables) {
      for (const precision::TensorOperands& tensor : precision::kOperandsOf) {
        row.push_back(largest_code(table, tensor));
      }
    }
  }
}

void DelayedState::enter_phase(ops::Ops& ops, size_t phase) {
  if (largest_code_.empty() || largest_code_[phase].empty()) return;
  ops.download(host_scale_.data(), t_.scale);
  ops.download(host_code_.data(), t_.largest_code);
  for (size_t row = 0; row < host_code_.size(); ++row) {
    const float code = largest_code_[phase][row];
    if (code == 0) continue;
    float& before = host_code_[row];
    if (before != 0) {
      host_scale_[row] =
          std::min(host_scale_[row] * (code / before), std::numeric_limits<float>::max());
    }
    before = code;
  }
  ops.upload(t_.scale, host_scale_.data());
  ops.upload(t_.largest_code, host_code_.data());
}

void DelayedState::end_step(ops::Ops& ops, size_t phase, const ops::Tensor& factor) {
  if (largest_code_.empty() || largest_code_[phase].empty()) return;
  ops.update_delayed_scales(t_.history, t_.scale, t_.amax, t_.largest_code, factor, rule_);
}

std::vector<NamedTensor> DelayedState::named_tensors() const {
  std::vector<NamedTensor> named;
  if (t_.history) named.push_back({kDelayedHistoryName, t_.history});
  if (t_.scale) {
    named.push_back({kDelayedScaleName, t_.scale});
    named.push_back({kDelayedCodeName, t_.largest_code});
  }
  return named;
}

}  // namespace qstep::trainer
