#include "trainer/model/model_precision.h"

#include <fmt/format.h>

#include <algorithm>

#include "trainer/model/logical_places.h"

namespace qstep::trainer {

using ops::Dtype;

namespace {

std::vector<LinearTensors> lay_out_phase(ops::Arena& arena, const PrecisionPhase& phase,
                                         const ModelConfig& model, int64_t n_tokens,
                                         Purpose purpose, const NativeProducts& native) {
  std::vector<LinearTensors> layers(phase.tables.size());
  const auto each = [&](auto&& lay_out) {
    for (size_t i = 0; i < layers.size(); ++i) {
      const LinearShape shape = linear_shape(model, static_cast<int64_t>(i));
      lay_out(arena, layers[i], phase.tables[i], shape, n_tokens, purpose, native);
    }
  };
  each(lay_out_kept);
  each(lay_out_scratch);
  return layers;
}

// A quantizer takes an amax that comes with its tensor.
bool takes_amaxes(const PrecisionPlan& plan, Purpose purpose) {
  const bool training = purpose == Purpose::kTraining;
  for (const PrecisionPhase& phase : plan.phases) {
    for (size_t module = 0; module < phase.tables.size(); ++module) {
      const auto kind = static_cast<LinearKind>(module % kLinearsPerBlock);
      const precision::OperandTable& table = phase.tables[module];
      for (const LinearTensor tensor : {LinearTensor::kX, LinearTensor::kDy}) {
        if (!made_with_amax(kind, tensor) || (tensor == LinearTensor::kDy && !training)) continue;
        const TensorOperands& uses = kOperandsOf[static_cast<size_t>(tensor)];
        if (precision::takes_known_amax(table[uses.row]) ||
            (training && precision::takes_known_amax(table[uses.column]))) {
          return true;
        }
      }
    }
  }
  return false;
}

void check_rounder(ops::Ops& ops, const PrecisionPlan& plan) {
  if (plan.rounder == precision::StochasticRounder::kPortable || !plan.rounds_stochastically() ||
      ops.has_hardware_rounder()) {
    return;
  }
  throw ops::Error(
      ops::ExitCode::kConfig,
      fmt::format(
          "precision.stochastic_rounding = \"hardware\" needs a GPU that rounds to E2M1 with "
          "random "
          "bits by itself (cvt.rs: compute capability 10.0 or 10.3, in code compiled for it), and "
          "this run computes on {}: write precision.stochastic_rounding = \"portable\"",
          ops.name()));
}

}  // namespace

PrecisionTensors PrecisionTensors::lay_out(ops::Arena& arena, const PrecisionPlan& plan,
                                           const ModelConfig& model, int64_t n_tokens,
                                           Purpose purpose, const NativeProducts& native) {
  PrecisionTensors t;
  if (plan.plain()) return t;
  t.delayed = DelayedTensors::lay_out(arena, plan, model, purpose);
  t.non_finite = arena.take("quantized operands", Dtype::kI32, n_modules(model), kTensorsPerLinear);
  if (takes_amaxes(plan, purpose)) {
    t.amaxes = arena.take("quantized operands", Dtype::kI32, n_modules(model), 2);
  }

  // Only one phase runs at a time: each is placed over the others.
  int64_t bytes = 0;
  for (const PrecisionPhase& phase : plan.phases) {
    ops::Arena measure;
    lay_out_phase(measure, phase, model, n_tokens, purpose, native);
    bytes = std::max(bytes, measure.peak_bytes());
  }
  const ops::Tensor block = arena.take("quantized operands", Dtype::kBf16, 1, bytes / 2);
  for (const PrecisionPhase& phase : plan.phases) {
    const ops::Buffer view(block.data, bytes, [](void*) {});
    ops::Arena place(view);
    t.phases.push_back(lay_out_phase(place, phase, model, n_tokens, purpose, native));
  }
  return t;
}

ModelPrecision::ModelPrecision(ops::Ops& ops, PrecisionPlan plan, PrecisionTensors tensors,
                               uint64_t seed)
    : plan_(std::move(plan)),
      t_(std::move(tensors)),
      delayed_(ops, plan_, t_.delayed),
      plain_(plan_.plain()),
      host_non_finite_(static_cast<size_t>(t_.non_finite.size())) {
  check_rounder(ops, plan_);
  pass_.seed = seed;
  pass_.weights_version = 1;
  delayed_.enter_phase(ops, training_phase_);
}

ModelPrecision::ModelPrecision(ops::Ops& ops, PrecisionPlan plan, PrecisionTensors tensors,
                               uint64_t seed, const ModelConfig& model, TensorParallel& group)
    : ModelPrecision(ops, std::move(plan), std::move(tensors), seed) {
  for (size_t kind = 0; kind < splits_.size() && group.size() > 1; ++kind) {
    splits_[kind] = {.places = logical_places(model, static_cast<LinearKind>(kind), group.place()),
                     .join = &group,
                     .first_rank = group.rank() == 0};
  }
}

LinearOperands ModelPrecision::linear(int64_t block, LinearKind kind) const {
  if (plain_) return {};
  const int64_t module = module_id(block, kind);
  std::vector<LinearTensors> phases;
  for (const std::vector<LinearTensors>& layers : t_.phases) {
    phases.push_back(layers[static_cast<size_t>(module)]);
  }
  return {pass_,
          delayed_,
          module,
          std::move(phases),
          t_.non_finite.row_range(module, 1),
          t_.amaxes ? t_.amaxes.row_range(module, 1) : ops::Tensor(),
          splits_[static_cast<size_t>(kind)]};
}

void ModelPrecision::begin_step(ops::Ops& ops, int64_t step, QuantLedger* ledger) {
  if (plain_) return;
  const size_t phase = plan_.phase_at(step);
  if (phase != training_phase_) delayed_.enter_phase(ops, phase);
  training_phase_ = phase;
  // The weights are quantized anew even where nothing moved them: their random bits and amaxes
  // belong to this step, whatever was evaluated before it.
  weights_changed();
  pass_ = {.training = true,
           .quantized = true,
           .phase = phase,
           .seed = pass_.seed,
           .rounder = plan_.rounder,
           .step = static_cast<uint32_t>(step),
           .micro_batch = 0,
           .weights_version = pass_.weights_version,
           .weights_made = 0,
           .ledger = ledger};
  ops.zero(t_.non_finite);
}

void ModelPrecision::end_step(ops::Ops& ops, const ops::Tensor& factor) {
  if (plain_) return;
  weights_changed();
  delayed_.end_step(ops, training_phase_, factor);
}

// The state may be of another recipe, which had other formats in this phase.
void ModelPrecision::restored(ops::Ops& ops, int64_t steps_done) {
  if (plain_) return;
  training_phase_ = plan_.phase_at(std::max<int64_t>(1, steps_done));
  delayed_.enter_phase(ops, training_phase_);
}

void ModelPrecision::begin_evaluation(int64_t step, EvalPrecision precision) {
  if (plain_) return;
  pass_ = {.training = false,
           .quantized = precision == EvalPrecision::kRecipe,
           .phase = plan_.phase_at(step),
           .seed = pass_.seed,
           .rounder = plan_.rounder,
           .step = static_cast<uint32_t>(step),
           .micro_batch = 0,
           .weights_version = pass_.weights_version,
           .weights_made = 0,
           .ledger = nullptr};
}

std::string ModelPrecision::first_non_finite() const {
  const auto n = static_cast<int64_t>(host_non_finite_.size()) / kTensorsPerLinear;
  const auto found = [&](int64_t module, LinearTensor tensor) {
    return host_non_finite_[static_cast<size_t>(tensor_row(module, tensor))] != 0;
  };
  const auto text = [](int64_t module, LinearTensor tensor) {
    return fmt::format("{} {}", module_name(module),
                       kLinearTensorNames[static_cast<size_t>(tensor)]);
  };
  for (int64_t module = 0; module < n; ++module) {
    for (const LinearTensor tensor : {LinearTensor::kX, LinearTensor::kW}) {
      if (found(module, tensor)) return text(module, tensor);
    }
  }
  for (int64_t module = n; module-- > 0;) {
    if (found(module, LinearTensor::kDy)) return text(module, LinearTensor::kDy);
  }
  return {};
}

}  // namespace qstep::trainer
