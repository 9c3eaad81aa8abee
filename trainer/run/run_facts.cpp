#include "trainer/run/run_facts.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "ops/cpu_library.h"
#include "ops/cuda/gpus.h"
#include "ops/parallel_for.h"
#include "trainer/base/format.h"
#include "trainer/machine/build_info.h"
#include "trainer/machine/libraries.h"
#include "trainer/machine/machine.h"

namespace qstep::trainer {

namespace {

FactGroup build_facts() {
  const BuildInfo& b = build_info();
  return {.name = "build",
          .facts = {{"version", std::string(b.version)},
                    {"revision", std::string(b.revision)},
                    {"type", std::string(b.type)},
                    {"flags", std::string(b.flags)},
                    {"compiler", std::string(b.compiler)},
                    {"instructions", std::string(ops::built_for())}}};
}

FactGroup machine_facts(std::string_view backend) {
  const Machine m = read_machine();
  FactGroup group{
      .name = "machine",
      .facts = {{"processor", m.cpu_name},
                {"cores", fmt::format("{} of {}{}", m.usable_cores, m.cores,
                                      m.cores_limit.empty() ? "" : ", " + m.cores_limit)},
                {"threads", fmt::format("{}", ops::max_threads())},
                {"bf16", std::string(describe(m.bf16_support()))},
                {"memory", bytes_text(m.memory_bytes)},
                {"huge_pages", m.huge_pages},
                {"device", std::string(backend)}}};
  const int64_t of_gpu = backend == "cpu" ? 0 : ops::current_gpu().memory_bytes;
  if (of_gpu > 0) group.facts.emplace_back("device_memory", bytes_text(of_gpu));
  return group;
}

// Those that are in use.
FactGroup library_facts(int n_ranks, std::string_view backend) {
  std::vector<Library> libraries = linked_libraries();
  if (n_ranks > 1) libraries.push_back(mpi_library());
  if (backend != "cpu") {
    const std::vector<Library> of_gpus = gpu_libraries();
    libraries.insert(libraries.end(), of_gpus.begin(), of_gpus.end());
  }
  FactGroup group{.name = "libraries", .facts = {}};
  for (const Library& library : libraries) {
    if (!library.present) continue;
    group.facts.emplace_back(library.name, library.note.empty()
                                               ? library.version
                                               : library.version + ", " + library.note);
  }
  return group;
}

FactGroup environment_facts() {
  FactGroup group{.name = "environment", .facts = {}};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos || !is_recorded_variable(text.substr(0, equals))) continue;
    group.facts.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  std::sort(group.facts.begin(), group.facts.end());
  return group;
}

}  // namespace

bool is_recorded_variable(std::string_view name) {
  constexpr std::array<std::string_view, 8> kPrefixes{"OMP_",  "GOMP_",   "NCCL_", "CUDA_",
                                                      "DNNL_", "ONEDNN_", "UCX_",  "MALLOC_"};
  return std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::vector<FactGroup> run_facts(int n_ranks, std::string_view backend) {
  return {build_facts(), machine_facts(backend), library_facts(n_ranks, backend),
          environment_facts()};
}

}  // namespace qstep::trainer
