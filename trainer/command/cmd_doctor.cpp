// qstep doctor: what this machine offers, and what is missing and how to get it.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "ops/cpu_library.h"
#include "ops/ops.h"
#include "parallel/nccl_world.h"
#include "trainer/backend/backend.h"
#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/command/commands.h"
#include "trainer/machine/libraries.h"
#include "trainer/machine/machine.h"
#include "trainer/model/product_matrix.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

// What carries tensors from one GPU to another; otherwise why nothing does.
std::string between_gpus() {
  try {
    return parallel::nccl_name();
  } catch (const ops::Error& error) {
    return error.what();
  }
}

struct Findings {
  Machine machine = read_machine();
  std::vector<Library> linked = linked_libraries();
  std::vector<Library> optional = optional_libraries();
  Disk disk = read_disk(".");
  std::string folder = std::filesystem::current_path().string();
  std::string gpu;  // its name; empty without one that can be used
  std::string why_no_cuda;
  std::string gpu_to_gpu = between_gpus();
  std::vector<FormatRow> gpu_products;
  bool hardware_rounder = false;

  Findings() {
    const std::unique_ptr<ops::Ops> ops = ask_gpu(why_no_cuda);
    if (ops == nullptr) return;
    gpu = ops->name();
    gpu_products = product_matrix(*ops);
    hardware_rounder = ops->has_hardware_rounder();
  }
};

// What stands in the way of training here, each with what to do.
std::vector<std::string> advice_on(const Findings& found) {
  std::vector<std::string> advice;
  const Machine& m = found.machine;
  if (ops::gemm_kernel(ops::Dtype::kBf16).empty()) {
    advice.push_back(
        "oneDNN has no BF16 matrix product for this processor: train with precision.recipe=fp32");
  } else if (m.bf16_support() == Bf16Support::kEmulated) {
    advice.push_back(
        "BF16 is emulated on this processor: precision.recipe=fp32 may be faster, bf16 is smaller");
  }
  if (m.avx512 && ops::built_for().find("AVX-512") == std::string_view::npos) {
    advice.push_back(
        "this binary does not use the processor's AVX-512: build without -DQSTEP_PORTABLE=ON");
  }
  if (m.huge_pages == "never") {
    advice.push_back(
        "transparent huge pages are off: large tensors cost more; as root: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled");
  }
  if (!found.disk.writable) {
    advice.push_back(
        fmt::format("{} is not writable: start qstep elsewhere or give run.dir an absolute path",
                    found.folder));
  }
  return advice;
}

Json to_json(const Library& library) {
  return {{"name", library.name},
          {"present", library.present},
          {"version", library.version},
          {"note", library.note}};
}

void print_json(const Findings& found) {
  const Machine& m = found.machine;
  Json json;
  json["processor"] = {{"name", m.cpu_name},
                       {"cores", m.cores},
                       {"usable_cores", m.usable_cores},
                       {"cores_limit", m.cores_limit},
                       {"avx2", m.avx2},
                       {"avx512", m.avx512},
                       {"avx512_bf16", m.avx512_bf16},
                       {"amx_bf16", m.amx_bf16},
                       {"built_for", ops::built_for()},
                       {"bf16", describe(m.bf16_support())},
                       {"quantized_formats", kQuantizedFormatsText},
                       {"l3_bytes", m.l3_bytes}};
  json["memory"] = {{"total_bytes", m.memory_bytes},
                    {"available_bytes", m.available_bytes},
                    {"huge_pages", m.huge_pages}};
  json["libraries"] = Json::array();
  for (const Library& library : found.linked) json["libraries"].push_back(to_json(library));
  json["optional"] = Json::array();
  for (const Library& library : found.optional) json["optional"].push_back(to_json(library));
  json["cuda"] = {{"usable", !found.gpu.empty()},
                  {"why_not", found.why_no_cuda},
                  {"gpu", found.gpu},
                  {"between_gpus", found.gpu_to_gpu},
                  {"stochastic_rounding", found.hardware_rounder},
                  {"products", Json::array()}};
  for (const FormatRow& row : found.gpu_products) {
    Json products = {{"format", row.format}};
    for (size_t gemm = 0; gemm < precision::kGemms.size(); ++gemm) {
      products[std::string(precision::kGemms[gemm].name)] = name(row.runs[gemm]);
    }
    json["cuda"]["products"].push_back(std::move(products));
  }
  json["folder"] = {{"path", found.folder},
                    {"writable", found.disk.writable},
                    {"free_bytes", found.disk.free_bytes}};
  json["advice"] = advice_on(found);
  fmt::print("{}\n", json.dump(2));
}

void print_libraries(const std::vector<Library>& libraries) {
  for (const Library& library : libraries) {
    const std::string version = library.present ? library.version : "missing";
    fmt::print("  {:<14} {:<12} {}\n", library.name, version, library.note);
  }
}

// Format by GEMM, where there is a GPU.
void print_products(const Findings& found) {
  if (found.gpu.empty()) {
    fmt::print("products on a GPU\n  none: {}\n", found.why_no_cuda);
    return;
  }
  fmt::print("products on the {}\n  {:<20}", found.gpu, "format");
  for (const precision::GemmOperands& gemm : precision::kGemms) fmt::print(" {:<12}", gemm.name);
  fmt::print("\n");
  for (const FormatRow& row : found.gpu_products) {
    fmt::print("  {:<20}", row.format);
    for (const Runs runs : row.runs) fmt::print(" {:<12}", name(runs));
    fmt::print("\n");
  }
  fmt::print("  emulated: rounded bit for bit, multiplied in BF16; no gain in time\n");
  fmt::print("  precision.stochastic_rounding=hardware: {}\n",
             found.hardware_rounder ? "rounds E2M1 by an instruction" : "not on this GPU");
}

void print_text(const Findings& found) {
  const Machine& m = found.machine;
  fmt::print("processor\n");
  fmt::print("  {:<14} {}\n", "name", m.cpu_name);
  fmt::print("  {:<14} {} of {}{}\n", "cores", m.usable_cores, m.cores,
             m.cores_limit.empty() ? "" : fmt::format(" ({})", m.cores_limit));
  const auto mark = [](bool has) { return has ? "yes" : "no"; };
  fmt::print("  {:<14} AVX2 {}, AVX-512 {}, AVX512_BF16 {}, AMX-BF16 {}\n", "instructions",
             mark(m.avx2), mark(m.avx512), mark(m.avx512_bf16), mark(m.amx_bf16));
  fmt::print("  {:<14} {}\n", "built for", ops::built_for());
  fmt::print("  {:<14} {}\n", "BF16", describe(m.bf16_support()));
  fmt::print("  {:<14} {}\n", "FP8, MX, NVFP4", kQuantizedFormatsText);
  fmt::print("  {:<14} {}\n", "L3 cache", m.l3_bytes > 0 ? bytes_text(m.l3_bytes) : "unknown");

  fmt::print("memory\n");
  fmt::print("  {:<14} {}, {} available\n", "size", bytes_text(m.memory_bytes),
             bytes_text(m.available_bytes));
  fmt::print("  {:<14} {}\n", "huge pages", m.huge_pages);

  fmt::print("libraries\n");
  print_libraries(found.linked);
  fmt::print("for GPUs and several processes\n");
  fmt::print("  {:<14} {}\n", "CUDA backend", found.gpu.empty() ? found.why_no_cuda : "usable");
  fmt::print("  {:<14} {}\n", "between GPUs", found.gpu_to_gpu);
  print_libraries(found.optional);

  print_products(found);

  fmt::print("folder\n");
  fmt::print("  {:<14} {}\n", "path", found.folder);
  fmt::print("  {:<14} {}\n", "writable", mark(found.disk.writable));
  fmt::print("  {:<14} {}\n", "free", bytes_text(found.disk.free_bytes));

  const std::vector<std::string> advice = advice_on(found);
  if (!found.gpu.empty()) {
    fmt::print("ready to train on the {} with run.device=cuda\n", found.gpu);
  }
  fmt::print("{}\n", advice.empty() ? "ready to train on the CPU" : "advice");
  for (const std::string& text : advice) fmt::print("  {}\n", text);
}

}  // namespace

void add_doctor_command(CLI::App& app, int&) {
  const auto as_json = std::make_shared<bool>(false);
  CLI::App* doctor = app.add_subcommand("doctor", "What this machine offers, what is missing");
  doctor->add_flag("--json", *as_json, "as JSON");
  doctor->footer("Example:\n  qstep doctor");
  doctor->callback([as_json] {
    const Findings found;
    if (*as_json) {
      print_json(found);
    } else {
      print_text(found);
    }
  });
}

}  // namespace qstep::trainer
