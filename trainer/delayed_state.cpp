#include "trainer/delayed_state.h"

#include "precision/element_format.h"

namespace qstep::trainer {

using ops::Dtype;
using precision::AmaxScope;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantFormat;
using precision::QuantSpec;

namespace {

// The two operands of a tensor, in the order of LinearTensor.
constexpr std::array<std::array<OperandSlot, 2>, 3> kSlots{
    {{OperandSlot::kXFprop, OperandSlot::kXWgrad},
     {OperandSlot::kWFprop, OperandSlot::kWDgrad},
     {OperandSlot::kDyDgrad, OperandSlot::kDyWgrad}}};

// Where both operands are delayed they have the same format (precision::problems).
float largest_code(const OperandTable& table, size_t tensor) {
  for (const OperandSlot slot : kSlots[tensor]) {
    const QuantSpec& spec = table[slot];
    if (spec.amax == AmaxScope::kDelayed && spec.format == QuantFormat::kFp8E5m2) {
      return precision::traits(precision::ElementFormat::kE5m2).max;
    }
  }
  return precision::traits(precision::ElementFormat::kE4m3).max;
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
  if (purpose == Purpose::kEvaluation) return t;
  t.history = take(n, plan.delayed.history);
  t.amax = take(1, n);
  t.largest_code = take(1, n);
  return t;
}

DelayedState::DelayedState(ops::Ops& ops, const PrecisionPlan& plan, const DelayedTensors& tensors)
    : t_(tensors), rule_(plan.delayed) {
  if (!t_.scale) return;
  const std::vector<float> ones(static_cast<size_t>(t_.scale.size()), 1.0f);
  ops.upload(t_.scale, ones.data());
  if (!t_.history) return;
  for (const PrecisionPhase& phase : plan.phases) {
    std::vector<float>& row = largest_code_.emplace_back();
    if (!phase.has_delayed()) continue;
    for (const OperandTable& table : phase.tables) {
      for (size_t tensor = 0; tensor < kSlots.size(); ++tensor) {
        row.push_back(largest_code(table, tensor));
      }
    }
  }
}

void DelayedState::enter_phase(ops::Ops& ops, size_t phase) {
  if (largest_code_.empty() || largest_code_[phase].empty()) return;
  ops.upload(t_.largest_code, largest_code_[phase].data());
}

void DelayedState::end_step(ops::Ops& ops, size_t phase, bool skipped) {
  if (largest_code_.empty() || largest_code_[phase].empty()) return;
  if (skipped) {
    ops.zero(t_.amax);
  } else {
    ops.update_delayed_scales(t_.history, t_.scale, t_.amax, t_.largest_code, rule_);
  }
}

std::vector<NamedTensor> DelayedState::named_tensors() const {
  std::vector<NamedTensor> named;
  if (t_.history) named.push_back({kDelayedHistoryName, t_.history});
  if (t_.scale) named.push_back({kDelayedScaleName, t_.scale});
  return named;
}

}  // namespace qstep::trainer
