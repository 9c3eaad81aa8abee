#include "trainer/machine/machines.h"

#include <fmt/format.h>

#include "ops/error.h"
#include "trainer/base/nearest.h"

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

const MachineModel* find_device(std::string_view device) {
  // What is in a driver's name and nowhere in that of another board of the table.
  struct Pattern {
    std::string_view machine, has, lacks;
  };
  constexpr std::array kPatterns{Pattern{"gb300", "GB300", ""},
                                 Pattern{"gb200", "GB200", ""},
                                 Pattern{"b300", "NVIDIA B300", ""},
                                 Pattern{"b200", "NVIDIA B200", ""},
                                 Pattern{"h200", "NVIDIA H200", "NVL"},
                                 Pattern{"h100-pcie", "NVIDIA H100 PCIe", ""},
                                 Pattern{"h100-nvl", "NVIDIA H100 NVL", ""},
                                 Pattern{"h100", "NVIDIA H100 80GB HBM3", ""},
                                 Pattern{"a100", "NVIDIA A100-SXM4-80GB", ""},
                                 Pattern{"rtx-pro-6000", "RTX PRO 6000 Blackwell Workstation", ""},
                                 Pattern{"rtx5090", "GeForce RTX 5090", "Laptop"},
                                 Pattern{"rtx4090", "GeForce RTX 4090", "Laptop"}};
  const auto contains = [&](std::string_view part) {
    return device.find(part) != std::string_view::npos;
  };
  for (const Pattern& p : kPatterns) {
    if (contains(p.has) && (p.lacks.empty() || !contains(p.lacks))) {
      return &machine_model(p.machine);
    }
  }
  return nullptr;
}

MachineModel measured_machine(const PeakRates& peak, const std::string& cpu_name,
                              int64_t memory_bytes, std::optional<CpuCosts> costs) {
  MachineModel m;
  m.name = kMeasuredMachine;
  m.title = cpu_name;
  const auto product = [&](ProductFormat format, double peak_rate, double gemm_rate) {
    if (peak_rate == 0) return;
    m.products[static_cast<size_t>(format)] = {
        .peak = peak_rate,
        .share = gemm_rate / peak_rate,
        .source = fmt::format("measured with {} thread{}: the faster of multiply-adds on registers "
                              "and a product of {}^3",
                              peak.n_threads, peak.n_threads == 1 ? "" : "s", peak.gemm_size)};
  };
  product(ProductFormat::kFp32, peak.fp32_flops_per_s(), peak.fp32_gemm_flops_per_s);
  // A processor without BF16 products widens both operands.
  if (peak.bf16_gemm_flops_per_s > 0) {
    product(ProductFormat::kBf16, peak.bf16_flops_per_s(), peak.bf16_gemm_flops_per_s);
  } else {
    product(ProductFormat::kBf16, peak.fp32_flops_per_s(), peak.fp32_gemm_flops_per_s);
  }
  m.attention_forward = kAssumedCpuAttentionForward;
  m.attention_backward = kAssumedCpuAttentionBackward;
  m.attention_source = costs ? "assumed; predictions take measured times" : "assumed";
  m.memory = {peak.triad_bytes_per_s, 1, "measured, a = b + s c"};
  m.memory_bytes = memory_bytes;
  m.launch_s = costs ? costs->launch_s : 0;
  m.launch_source = costs ? "measured, a loop over 16 elements" : "none";
  m.costs = std::move(costs);
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
