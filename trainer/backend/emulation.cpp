#include "trainer/backend/emulation.h"

#include <fmt/format.h>

#include <array>
#include <span>

#include "trainer/backend/backend.h"
#include "trainer/machine/machine.h"

namespace qstep::trainer {

bool emulated(precision::ComputeType compute) {
  if (compute == precision::ComputeType::kFp32) return false;
  static const bool emulates_bf16 = read_machine().bf16_support() == Bf16Support::kEmulated;
  return emulates_bf16;
}

namespace {

using precision::Gemm;

// A product of quantized operands that are multiplied by what they decode to.
bool decoded(const Config& config, int64_t module, const precision::OperandTable& table, Gemm gemm,
             int64_t n_tokens, const NativeProducts& native) {
  const precision::GemmOperands& operands = precision::kGemms[gemm];
  if (!table[operands.left].quantized() && !table[operands.right].quantized()) return false;
  const ModelConfig share = tensor_share(config.model, config.parallel.tensor);
  return !native.has(table, gemm, linear_shape(share, module), n_tokens);
}

// One of these, in any layer and at any step.
bool any_decoded(const Config& config, const PrecisionPlan& plan, int64_t n_tokens,
                 std::span<const Gemm> gemms, const NativeProducts& native) {
  for (const PrecisionPhase& phase : plan.phases) {
    for (size_t module = 0; module < phase.tables.size(); ++module) {
      for (const Gemm gemm : gemms) {
        if (decoded(config, static_cast<int64_t>(module), phase.tables[module], gemm, n_tokens,
                    native)) {
          return true;
        }
      }
    }
  }
  return false;
}

}  // namespace

bool emulated(const Config& config, ops::Ops& ops) {
  if (emulated(config.precision.loaded.compute, ops)) return true;
  const int64_t n_tokens = config.train.micro_batch * config.train.seq_len;
  return any_decoded(config, plan_precision(config), n_tokens,
                     std::array{Gemm::kFprop, Gemm::kDgrad, Gemm::kWgrad},
                     NativeProducts(ops, config.compute_dtype()));
}

bool emulated(const Config& config, int64_t module, const precision::OperandTable& table, Gemm gemm,
              const ops::Ops& ops, const NativeProducts& native) {
  const int64_t n_tokens = config.train.micro_batch * config.train.seq_len;
  return emulated(config.precision.loaded.compute, ops) ||
         decoded(config, module, table, gemm, n_tokens, native);
}

bool emulated_forward(const Config& config, const PrecisionPlan& plan, int64_t n_tokens,
                      const ops::Ops& ops, const NativeProducts& native) {
  return emulated(config.precision.loaded.compute, ops) ||
         any_decoded(config, plan, n_tokens, std::array{Gemm::kFprop}, native);
}

bool emulated_on_device(const Config& config) {
  return emulated(config, *make_backend(config.run.device));
}

std::string precision_text(const PrecisionConfig& precision, const PrecisionPlan& plan,
                           bool emulated) {
  const precision::ComputeType compute = precision.loaded.compute;
  return fmt::format("{} {}", plan.plain() ? name(compute) : std::string_view(precision.recipe),
                     emulation_text(emulated));
}

std::string evaluation_text(const Config& config, ops::Ops& ops) {
  PrecisionPlan plan = plan_precision(config);
  if (config.precision.eval != EvalPrecision::kRecipe) plan = {};
  const int64_t n_tokens = config.train.micro_batch * config.train.seq_len;
  return precision_text(
      config.precision, plan,
      emulated_forward(config, plan, n_tokens, ops, NativeProducts(ops, config.compute_dtype())));
}

}  // namespace qstep::trainer
