// Machines that a step time is predicted for: what they can do at most, how much of it products,
// passes over memory and collectives attain, and who says so. Dense rates only. A machine that is
// not in the table is described by its user or measured; it never gets another one's figures.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "precision/quant_spec.h"
#include "trainer/machine/cpu_costs.h"
#include "trainer/machine/peak.h"

namespace qstep::trainer {

// Kinds of matrix product by what the hardware must know: the elements and what shares a scale.
enum class ProductFormat : uint8_t { kFp32, kBf16, kFp8, kFp8Tiles, kMxfp8, kMxfp4, kNvfp4 };
inline constexpr std::array<std::string_view, 7> kProductFormatNames{
    "fp32", "bf16", "fp8", "fp8_tiles", "mxfp8", "mxfp4", "nvfp4"};
constexpr std::string_view name(ProductFormat format) {
  return kProductFormatNames[static_cast<size_t>(format)];
}

// A rate with what is reached of it.
struct Rate {
  double peak = 0;   // flops/s, or bytes/s; 0: the machine has no such thing
  double share = 0;  // of the peak, attained by large products or transfers; in (0, 1]
  std::string source;

  double attained() const { return peak * share; }
};

struct MachineModel {
  std::string name;   // "gb300"
  std::string title;  // "NVIDIA GB300 NVL72, one of its GPUs"
  std::array<Rate, kProductFormatNames.size()> products;
  // Shares of the BF16 peak over the causal triangle at T = 8192 and D = 128.
  double attention_forward = 0, attention_backward = 0;
  std::string attention_source;
  Rate memory;
  int64_t memory_bytes = 0;
  int capability = 0;     // of a GPU: 90 is 9.0; 0: not known, or no GPU
  int gpus_per_node = 1;  // what --nodes counts
  int gpus_per_link = 1;  // joined by the fast link: a node, or a rack
  Rate link, network;     // one direction of one GPU: within gpus_per_link, and beyond
  double launch_s = 0;    // of an operation, whatever its size
  std::string launch_source;
  // Measured operations of a processor: predictions take these in place of shares and bytes.
  std::optional<CpuCosts> costs;

  const Rate& product(ProductFormat format) const { return products[static_cast<size_t>(format)]; }
  bool has(ProductFormat format) const { return product(format).peak > 0; }
};

// What the table holds, by generation.
const std::vector<MachineModel>& machines();

// Stands for this processor: measured_machine.
inline constexpr std::string_view kMeasuredMachine = "cpu";

// The machine of that name; an Error (config) that lists all of them, and --machine, otherwise.
const MachineModel& machine_model(std::string_view name);

// The machine of that GPU, as its driver calls it ("NVIDIA H100 80GB HBM3"); null for one that is
// not in the table.
const MachineModel* find_device(std::string_view device);

// From TOML (trainer/plan/README.md lists the keys). Every rate has a source. Throws an Error (config)
// with every problem.
MachineModel read_machine_file(const std::string& path);
MachineModel parse_machine(const std::string& toml_text, const std::string& origin);

// This processor as it was measured: one rank with all of its threads. With `costs` a prediction is
// made of them, otherwise, as of a GPU, of peaks alone.
MachineModel measured_machine(const PeakRates& peak, const std::string& cpu_name,
                              int64_t memory_bytes, std::optional<CpuCosts> costs = {});

// What a product of these two operands takes of the hardware. `compute` where one of them is not
// quantized, or where their scales do not go together.
ProductFormat product_format(const precision::QuantSpec& left, const precision::QuantSpec& right,
                             ProductFormat compute);

// How a machine multiplies these operands: in the format that they ask for, or in the compute type,
// whatever is quantized being decoded (emulated). Tiles with powers of two run as MXFP8 where
// only that exists (Transformer Engine's way on Blackwell).
struct RunsAs {
  ProductFormat asked = ProductFormat::kBf16, format = ProductFormat::kBf16;
  bool emulated = false;
};
RunsAs runs_as(const MachineModel& machine, const precision::QuantSpec& left,
               const precision::QuantSpec& right, ProductFormat compute);

}  // namespace qstep::trainer
