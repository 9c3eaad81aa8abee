// qstep bench peak
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "trainer/base/format.h"
#include "trainer/command/commands.h"
#include "trainer/machine/machine.h"
#include "trainer/machine/peak_cache.h"

namespace qstep::trainer {

namespace {

void print_peak(const PeakRates& peak, bool as_json) {
  const Machine machine = read_machine();
  if (as_json) {
    const nlohmann::ordered_json json = {
        {"cpu", machine.cpu_name},
        {"n_threads", peak.n_threads},
        {"bf16_flops_per_s", peak.bf16_flops_per_s()},
        {"fp32_flops_per_s", peak.fp32_flops_per_s()},
        {"bf16_register_flops_per_s", peak.bf16_register_flops_per_s},
        {"fp32_register_flops_per_s", peak.fp32_register_flops_per_s},
        {"bf16_gemm_flops_per_s", peak.bf16_gemm_flops_per_s},
        {"fp32_gemm_flops_per_s", peak.fp32_gemm_flops_per_s},
        {"gemm_size", peak.gemm_size},
        {"triad_bytes_per_s", peak.triad_bytes_per_s},
        {"triad_array_bytes", peak.triad_array_bytes}};
    fmt::print("{}\n", json.dump(2));
    return;
  }
  const auto rate = [](double flops_per_s) {
    return flops_per_s > 0 ? si_text(flops_per_s, "FLOP/s") : std::string("-");
  };
  fmt::print("{}, {} thread{}\n", machine.cpu_name, peak.n_threads, peak.n_threads == 1 ? "" : "s");
  fmt::print("  {:<26}{:>16}{:>16}\n", "", "bf16", "fp32");
  fmt::print("  {:<26}{:>16}{:>16}\n", "multiply-add on registers",
             rate(peak.bf16_register_flops_per_s), rate(peak.fp32_register_flops_per_s));
  fmt::print("  {:<26}{:>16}{:>16}\n", fmt::format("matrix product of {}^3", peak.gemm_size),
             rate(peak.bf16_gemm_flops_per_s), rate(peak.fp32_gemm_flops_per_s));
  fmt::print("  {:<26}{:>16}{:>16}\n", "peak (the larger)", rate(peak.bf16_flops_per_s()),
             rate(peak.fp32_flops_per_s()));
  fmt::print("  {:<26}{:>16}\n", "memory, a = b + s c", si_text(peak.triad_bytes_per_s, "B/s"));
}

void add_bench_peak(CLI::App& bench) {
  struct Arguments {
    double seconds = 0.5;
    bool json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* peak =
      bench.add_subcommand("peak", "Measured arithmetic and memory rates of this machine");
  peak->add_option("--seconds", arguments->seconds, "spent on each of the five figures")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 60.0));
  peak->add_flag("--json", arguments->json, "as JSON");
  peak->footer(
      "qstep train takes what is measured here for a processor, where it is better than what runs\n"
      "have measured at their start with as many threads in one process (timing.peak).\n"
      "Example:\n  qstep bench peak --json");
  peak->callback([arguments] {
    const PeakRates rates = measure_peak(arguments->seconds);
    user_peak_cache().add(peak_key(rates.n_threads, 1), rates);
    print_peak(rates, arguments->json);
  });
}

}  // namespace

void add_bench_command(CLI::App& app, int& exit_code) {
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure this machine, whole training steps and their operations");
  bench->require_subcommand(1);
  bench->footer(
      "Examples:\n"
      "  qstep bench peak\n"
      "  qstep bench step --model gpt2-124m --precision bf16,nvfp4 --steps 10\n"
      "  qstep bench ops --model gpt2-124m --precision nvfp4\n"
      "  qstep bench plan");
  add_bench_peak(*bench);
  add_bench_step_command(*bench, exit_code);
  add_bench_ops_command(*bench, exit_code);
  add_bench_plan_command(*bench);
}

}  // namespace qstep::trainer
