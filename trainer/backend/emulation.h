// Whether a backend multiplies in a format itself or computes what the format's hardware would: the
// one place that says so, for logs, reports and files. A CPU does the latter with every quantized
// format; a GPU is asked, product by product (native_products.h).
#pragma once

#include <string>
#include <string_view>

#include "ops/ops.h"
#include "trainer/config/config.h"
#include "trainer/config/layer_precision.h"
#include "trainer/model/native_products.h"

namespace qstep::trainer {

// The compute type: FP32 never is, BF16 where the processor has no product of it.
bool emulated(precision::ComputeType compute);
// On that backend; GPUs have BF16.
inline bool emulated(precision::ComputeType compute, const ops::Ops& ops) {
  return ops.in_host_memory() && emulated(compute);
}
// A quantized operand is decoded to BF16, exactly, on a CPU.
inline constexpr bool kQuantizedEmulated = true;
// What runs in a model on a CPU, in any layer and at any step.
inline bool emulated(const Config& config) {
  return (!plan_precision(config).plain() && kQuantizedEmulated) ||
         emulated(config.precision.loaded.compute);
}

// A run on that backend: any of its products, in any layer and at any step. A run that is emulated
// in part is emulated: its time is no figure of the format.
bool emulated(const Config& config, ops::Ops& ops);
// One product of a linear layer in micro-batches of the run. native: asked of `ops`.
bool emulated(const Config& config, int64_t module, const precision::OperandTable& table,
              precision::Gemm gemm, const ops::Ops& ops, const NativeProducts& native);
// On the backend that run.device picks.
bool emulated_on_device(const Config& config);

// What quantized formats are on this processor, for people.
inline constexpr std::string_view kQuantizedFormatsText =
    "emulated: rounded bit for bit, decoded and multiplied in BF16";

constexpr std::string_view emulation_text(bool emulated) {
  return emulated ? "emulated" : "native";
}

// Forward passes in micro-batches of n_tokens: any of their products. native: asked of `ops`; empty
// where operands are laid out decoded.
bool emulated_forward(const Config& config, const PrecisionPlan& plan, int64_t n_tokens,
                      const ops::Ops& ops, const NativeProducts& native);

// What forward passes under this plan compute in: "nvfp4 emulated", or "bf16 native" where none of
// them is quantized.
std::string precision_text(const PrecisionConfig& precision, const PrecisionPlan& plan,
                           bool emulated);
// The same of a run's evaluations (precision.eval), on its backend.
std::string evaluation_text(const Config& config, ops::Ops& ops);

}  // namespace qstep::trainer
