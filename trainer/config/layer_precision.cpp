#include "trainer/config/layer_precision.h"

#include <fmt/format.h>

#include <algorithm>

namespace qstep::trainer {

using precision::AmaxScope;
using precision::OperandTable;
using precision::QuantSpec;

std::string module_name(int64_t module) {
  return fmt::format("blocks.{}.{}", module / kLinearsPerBlock,
                     kLinearNames[static_cast<size_t>(module % kLinearsPerBlock)]);
}

LinearShape linear_shape(const ModelConfig& m, LinearKind kind) {
  switch (kind) {
    case LinearKind::kQkv:
      return {.out = m.qkv_width(), .in = m.width};
    case LinearKind::kAttnOut:
      return {.out = m.width, .in = m.q_width()};
    case LinearKind::kUp:
      return {.out = m.up_width(), .in = m.width};
    case LinearKind::kDown:
      return {.out = m.width, .in = m.ffn_width};
  }
  return {};
}

namespace {

template <class F>
bool any_quantized(const PrecisionPhase& phase, const F& f) {
  return std::any_of(phase.tables.begin(), phase.tables.end(), [&](const OperandTable& table) {
    return std::any_of(table.specs.begin(), table.specs.end(),
                       [&](const QuantSpec& spec) { return spec.quantized() && f(spec); });
  });
}

}  // namespace

bool PrecisionPhase::has_delayed() const {
  return any_quantized(*this,
                       [](const QuantSpec& spec) { return spec.amax == AmaxScope::kDelayed; });
}

bool PrecisionPhase::rounds_stochastically() const {
  return any_quantized(*this, [](const QuantSpec& spec) {
    return spec.rounding == precision::Rounding::kStochastic;
  });
}

bool PrecisionPlan::plain() const {
  return std::all_of(phases.begin(), phases.end(), [](const PrecisionPhase& phase) {
    return std::none_of(phase.tables.begin(), phase.tables.end(),
                        [](const OperandTable& table) { return table.quantized(); });
  });
}

bool PrecisionPlan::has_delayed() const {
  return std::any_of(phases.begin(), phases.end(),
                     [](const PrecisionPhase& phase) { return phase.has_delayed(); });
}

bool PrecisionPlan::rounds_stochastically() const {
  return std::any_of(phases.begin(), phases.end(),
                     [](const PrecisionPhase& phase) { return phase.rounds_stochastically(); });
}

size_t PrecisionPlan::phase_at(int64_t step) const {
  size_t phase = 0;
  while (phase + 1 < phases.size() && phases[phase + 1].first_step <= step) ++phase;
  return phase;
}

PrecisionPlan plan_precision(const Config& config) {
  const precision::Recipe& recipe = config.precision.loaded;
  const ModelConfig& model = config.model;
  const int64_t n_steps = config.train.steps;
  PrecisionPlan plan{
      .phases = {}, .delayed = recipe.delayed, .rounder = config.precision.stochastic_rounding};
  for (const int64_t first_step : precision::phase_starts(recipe, n_steps)) {
    PrecisionPhase phase{.first_step = first_step, .tables = {}};
    for (int64_t module = 0; module < n_modules(model); ++module) {
      const precision::LayerName layer{.name = module_name(module),
                                       .block = module / kLinearsPerBlock,
                                       .n_blocks = model.n_layers};
      phase.tables.push_back(precision::operands_at(recipe, layer, first_step, n_steps));
    }
    plan.phases.push_back(std::move(phase));
  }
  return plan;
}

}  // namespace qstep::trainer
