#include "trainer/emulation.h"

#include <fmt/format.h>

#include "trainer/backend.h"
#include "trainer/machine.h"
#include "trainer/native_products.h"

namespace qstep::trainer {

bool emulated(precision::ComputeType compute) {
  if (compute == precision::ComputeType::kFp32) return false;
  static const bool emulates_bf16 = read_machine().bf16_support() == Bf16Support::kEmulated;
  return emulates_bf16;
}

bool emulated(const Config& config, ops::Ops& ops) {
  if (emulated(config.precision.loaded.compute, ops)) return true;
  const NativeProducts native(ops, config.compute_dtype());
  const ModelConfig share = tensor_share(config.model, config.parallel.tensor);
  const int64_t n_tokens = config.train.micro_batch * config.train.seq_len;
  for (const PrecisionPhase& phase : plan_precision(config).phases) {
    for (size_t module = 0; module < phase.tables.size(); ++module) {
      const precision::OperandTable& table = phase.tables[module];
      const LinearShape shape = linear_shape(share, static_cast<int64_t>(module));
      for (size_t gemm = 0; gemm < precision::kGemms.size(); ++gemm) {
        const precision::GemmOperands& operands = precision::kGemms[gemm];
        const bool quantized =
            table[operands.left].quantized() || table[operands.right].quantized();
        if (quantized && !native.has(table, static_cast<precision::Gemm>(gemm), shape, n_tokens)) {
          return true;
        }
      }
    }
  }
  return false;
}

bool emulated_on_device(const Config& config, int n_ranks) {
  return emulated(config, *make_backend(config.run.device, n_ranks));
}

namespace {

std::string text(const PrecisionConfig& precision, bool plain, bool emulated) {
  const precision::ComputeType compute = precision.loaded.compute;
  return fmt::format("{} {}", plain ? name(compute) : std::string_view(precision.recipe),
                     emulation_text(emulated));
}

}  // namespace

std::string precision_text(const PrecisionConfig& precision, const PrecisionPlan& plan) {
  return text(precision, plan.plain(), emulated(plan, precision.loaded.compute));
}

std::string evaluation_text(const Config& config, ops::Ops& ops) {
  const bool in_recipe =
      config.precision.eval == EvalPrecision::kRecipe && !plan_precision(config).plain();
  return text(config.precision, !in_recipe,
              in_recipe ? emulated(config, ops) : emulated(config.precision.loaded.compute, ops));
}

}  // namespace qstep::trainer
