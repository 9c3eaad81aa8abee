#include "trainer/emulation.h"

#include <fmt/format.h>

#include "trainer/machine.h"

namespace qstep::trainer {

bool emulated(precision::ComputeType compute) {
  if (compute == precision::ComputeType::kFp32) return false;
  static const bool emulates_bf16 = read_machine().bf16_support() == Bf16Support::kEmulated;
  return emulates_bf16;
}

std::string precision_text(const PrecisionConfig& precision, const PrecisionPlan& plan) {
  const precision::ComputeType compute = precision.loaded.compute;
  return fmt::format("{} {}", plan.plain() ? name(compute) : std::string_view(precision.recipe),
                     emulation_text(emulated(plan, compute)));
}

std::string evaluation_text(const Config& config) {
  const bool in_recipe = config.precision.eval == EvalPrecision::kRecipe;
  return precision_text(config.precision, in_recipe ? plan_precision(config) : PrecisionPlan{});
}

}  // namespace qstep::trainer
