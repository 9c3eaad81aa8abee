#include "trainer/machine/rank_peaks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>

#include "ops/parallel_for.h"
#include "trainer/base/agreement.h"
#include "trainer/base/exit_reason.h"
#include "trainer/base/format.h"
#include "trainer/base/nearest.h"
#include "trainer/machine/machine.h"
#include "trainer/machine/peak_cache.h"

namespace qstep::trainer {

namespace {

constexpr std::string_view kMeasure = "measure", kOff = "off";

// 0 for what is no number above 0.
double number_of(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && value > 0 && value < 1e12 ? value : 0;
}

const MachineModel* named(const std::string& name) {
  for (const MachineModel& m : machines()) {
    if (m.name == name) return &m;
  }
  return nullptr;
}

MachineModel given_machine(double tflops, ops::Dtype compute) {
  const bool fp32 = compute == ops::Dtype::kF32;
  MachineModel m;
  m.name = "given";
  m.products[static_cast<size_t>(fp32 ? ProductFormat::kFp32 : ProductFormat::kBf16)] = {
      .peak = tflops * 1e12, .share = 1, .source = fmt::format("timing.peak = {}", tflops)};
  return m;
}

// Bits, so that no rank reads back another number.
std::string text_of(const PeakRates& r) {
  std::string text;
  for (const double figure :
       {r.bf16_register_flops_per_s, r.fp32_register_flops_per_s, r.bf16_gemm_flops_per_s,
        r.fp32_gemm_flops_per_s, r.triad_bytes_per_s, static_cast<double>(r.gemm_size),
        static_cast<double>(r.triad_array_bytes)}) {
    text += fmt::format("{:016x}", std::bit_cast<uint64_t>(figure));
  }
  return text;
}

PeakRates rates_of(const std::string& text) {
  PeakRates r;
  size_t at = 0;
  double size = 0, array = 0;
  for (double* const figure :
       {&r.bf16_register_flops_per_s, &r.fp32_register_flops_per_s, &r.bf16_gemm_flops_per_s,
        &r.fp32_gemm_flops_per_s, &r.triad_bytes_per_s, &size, &array}) {
    *figure = std::bit_cast<double>(std::stoull(text.substr(at, 16), nullptr, 16));
    at += 16;
  }
  r.gemm_size = static_cast<int64_t>(size);
  r.triad_array_bytes = static_cast<int64_t>(array);
  return r;
}

// The best of what all ranks measure now.
PeakRates measure_together(parallel::Comm& comm) {
  comm.wait(comm.barrier());
  PeakRates best;
  for (const std::string& text :
       agree_texts(comm, [] { return text_of(measure_peak_briefly()); })) {
    best = best_of(best, rates_of(text));
  }
  return best;
}

MachineModel measured_rank(parallel::Comm& comm) {
  const std::string host = host_name();
  const std::vector<std::string> hosts = parallel::all_gather_text(comm, host);
  const PeakKey key =
      peak_key(ops::max_threads(), std::count(hosts.begin(), hosts.end(), hosts.front()));
  const PeakCache cache = user_peak_cache();
  // The first rank's file counts: another one may see another home.
  std::string figures = text_of_first_rank(comm, [&]() -> std::string {
    const std::optional<KeptPeak> kept = cache.find(key);
    return kept && kept->measurements >= kPeakMeasurements ? text_of(kept->rates) : "";
  });
  if (figures.empty()) {
    const PeakRates measured = measure_together(comm);
    figures = text_of_first_rank(comm, [&] { return text_of(cache.add(key, measured).rates); });
  }
  PeakRates rates = rates_of(figures);
  rates.n_threads = key.threads;
  const Machine machine = read_machine();
  return measured_machine(rates, machine.cpu_name, machine.memory_bytes);
}

}  // namespace

std::string peak_problem(const std::string& peak) {
  if (peak == kMeasure || peak == kOff || number_of(peak) > 0 || named(peak) != nullptr) return "";
  std::vector<std::string> names{std::string(kMeasure), std::string(kOff)};
  for (const MachineModel& m : machines()) names.push_back(m.name);
  return fmt::format(
      "timing.peak = \"{}\" is neither a number of TFLOP/s above 0 nor one of {}: write "
      "timing.peak = \"{}\"",
      peak, fmt::join(names, ", "), nearest(peak, names));
}

MachineModel rank_machine(parallel::Comm& comm, const Config& config, std::string_view device) {
  const std::string& peak = config.timing.peak;
  if (peak == kOff) return {};
  if (const double tflops = number_of(peak); tflops > 0) {
    return given_machine(tflops, config.compute_dtype());
  }
  if (const MachineModel* const machine = named(peak)) return *machine;
  if (device == kMeasuredMachine) return measured_rank(comm);
  const MachineModel* const known = find_device(device);
  return known != nullptr ? *known : MachineModel{};
}

std::string peaks_source(const MachineModel& machine) {
  for (const Rate& rate : machine.products) {
    if (rate.peak > 0) return rate.source;
  }
  return "";
}

std::string peaks_text(const MachineModel& machine) {
  std::string text;
  for (size_t i = 0; i < machine.products.size(); ++i) {
    const double peak = machine.products[i].peak;
    if (peak > 0) text += fmt::format("{} {}, ", si_text(peak, "FLOP/s"), kProductFormatNames[i]);
  }
  if (text.empty()) return "not known";
  if (machine.memory.peak > 0) text += si_text(machine.memory.peak, "B/s") + " memory, ";
  text.resize(text.size() - 2);
  return fmt::format("{} ({})", text, peaks_source(machine));
}

}  // namespace qstep::trainer
