#include "trainer/machines.h"

#include <fmt/format.h>

#include "ops/error.h"
#include "trainer/nearest.h"

namespace qstep::trainer {

namespace {

using precision::AmaxScope;
using precision::QuantFormat;
using precision::QuantSpec;
using precision::ScaleRule;

// Attention of a processor, against its BF16 product: nobody has published such a figure.
constexpr double kAssumedCpuAttentionForward = 0.5, kAssumedCpuAttentionBackward = 0.4;

// One factor for the sum over k, or one per row of it: it can wait until the product is done.
bool outer_scale_waits(const QuantSpec& spec) { return spec.amax != AmaxScope::kGroup128; }

}  // namespace

const MachineModel& machine_model(std::string_view name) {
  std::vector<std::string> names;
  for (const MachineModel& m : machines()) {
    if (m.name == name) return m;
    names.push_back(m.name);
  }
  throw ops::Error(
      ops::ExitCode::kConfig,
      fmt::format("--gpu {}: no such machine is known; the nearest is \"{}\". Known: {}"
                  ", and cpu, which is measured. Describe another one in a file: "
                  "--machine FILE.toml",
                  name, nearest(name, names), fmt::join(names, ", ")));
}

MachineModel measured_machine(const PeakRates& peak, const std::string& cpu_name,
                              int64_t memory_bytes) {
  MachineModel m;
  m.name = kMeasuredMachine;
  m.title = cpu_name;
  const auto product = [&](ProductFormat format, double rate) {
    m.products[static_cast<size_t>(format)] = {
        .peak = rate, .share = 1, .source = fmt::format("measured, {}^3", peak.gemm_size)};
  };
  product(ProductFormat::kFp32, peak.fp32_gemm_flops_per_s);
  // A processor without BF16 products widens both operands.
  product(ProductFormat::kBf16,
          peak.bf16_gemm_flops_per_s > 0 ? peak.bf16_gemm_flops_per_s : peak.fp32_gemm_flops_per_s);
  m.attention_forward = kAssumedCpuAttentionForward;
  m.attention_backward = kAssumedCpuAttentionBackward;
  m.attention_source = "assumed";
  m.memory = {peak.triad_bytes_per_s, 1, "measured, a = b + s c"};
  m.memory_bytes = memory_bytes;
  m.fp8_any_layout = true;
  m.launch_source = "none";
  return m;
}

ProductFormat product_format(const QuantSpec& left, const QuantSpec& right, ProductFormat compute) {
  if (!left.quantized() || !right.quantized()) return compute;
  const auto both = [&](auto&& is) { return is(left) && is(right); };
  if (both([](const QuantSpec& s) {
        return s.format == QuantFormat::kNvfp4 && outer_scale_waits(s);
      })) {
    return ProductFormat::kNvfp4;
  }
  if (both([](const QuantSpec& s) { return s.format == QuantFormat::kMxfp4; })) {
    return ProductFormat::kMxfp4;
  }
  if (both([](const QuantSpec& s) {
        return s.format == QuantFormat::kMxfp8E4m3 || s.format == QuantFormat::kMxfp8E5m2;
      })) {
    return ProductFormat::kMxfp8;
  }
  if (both([](const QuantSpec& s) { return is_fp8_format(s.format) && s.block.whole_tensor(); })) {
    return ProductFormat::kFp8;
  }
  if (both([](const QuantSpec& s) { return is_fp8_format(s.format) && !s.block.whole_tensor(); })) {
    return ProductFormat::kFp8Tiles;
  }
  return compute;
}

RunsAs runs_as(const MachineModel& machine, const QuantSpec& left, const QuantSpec& right,
               ProductFormat compute) {
  const ProductFormat asked = product_format(left, right, compute);
  const bool quantized = left.quantized() || right.quantized();
  if (machine.has(asked)) return {asked, asked, asked == compute && quantized};
  const bool pow2 = left.scale == ScaleRule::kFp32Pow2 && right.scale == ScaleRule::kFp32Pow2;
  if (asked == ProductFormat::kFp8Tiles && pow2 && machine.has(ProductFormat::kMxfp8)) {
    return {asked, ProductFormat::kMxfp8, false};
  }
  return {asked, compute, true};
}

}  // namespace qstep::trainer
