#include "trainer/bench/bench_plan.h"

#include "trainer/bench/bench_step.h"
#include "trainer/machine/machine.h"
#include "trainer/plan/step_model.h"

namespace qstep::trainer {

namespace {

// A prediction from measured costs reads peaks for utilisations alone, which nobody asks for here.
PeakRates peaks_of(const TypeCosts& costs) {
  PeakRates peak;
  peak.bf16_gemm_flops_per_s = peak.fp32_gemm_flops_per_s = 1 / costs.products[0].s_per_flop;
  peak.triad_bytes_per_s = 1;
  return peak;
}

}  // namespace

const std::vector<PlanCase>& plan_cases() {
  const auto workload = [](const char* model, int64_t batch, int64_t seq_len,
                           std::vector<std::string> overrides = {}) {
    return BenchWorkload{.model = model,
                         .batch = batch,
                         .micro_batches = 1,
                         .seq_len = seq_len,
                         .threads = 0,
                         .overrides = std::move(overrides)};
  };
  static const std::vector<PlanCase> cases{
      {"gpt2-10m", workload("gpt2-10m", 4, 256)},
      {"llama-15m, grouped queries", workload("llama-15m", 4, 256)},
      {"narrow and deep",
       workload("llama-15m", 4, 128,
                {"model.n_layers=24", "model.width=192", "model.n_heads=6", "model.n_kv_heads=2",
                 "model.head_dim=32", "model.ffn_width=512"})},
      {"wide and shallow",
       workload("gpt2-10m", 2, 256,
                {"model.n_layers=2", "model.width=1024", "model.n_heads=16", "model.n_kv_heads=16",
                 "model.head_dim=64", "model.ffn_width=4096"})},
      {"llama-15m, long sequence", workload("llama-15m", 1, 1024)},
      {"gpt2-10m, short sequences", workload("gpt2-10m", 16, 64)},
  };
  return cases;
}

PlanRow bench_plan(const PlanCase& shape, const std::string& precision, int64_t rounds) {
  Config config = shape.workload.config(precision);
  config.timing.level = TimingLevel::kOps;
  const std::unique_ptr<parallel::Comm> alone = parallel::make_single();
  CpuProbe probe(config.model, {config.compute_dtype()});
  StepBench bench(config, *alone);
  constexpr int kWarmup = 2;
  for (int i = 0; i < kWarmup; ++i) bench.warm_up();
  std::array<std::vector<double>, kCategoryNames.size()> categories_ms;
  for (int64_t round = 0; round < rounds; ++round) {
    probe.round();
    bench.time();
    const Timeline& timeline = bench.trainer().timeline();
    const Breakdown ms = breakdown(timeline.spans(), timeline.step());
    for (size_t i = 0; i < ms.size(); ++i) categories_ms[i].push_back(ms[i]);
  }

  const CpuCosts costs = probe.costs();
  const Machine machine = read_machine();
  const MachineModel model = measured_machine(peaks_of(costs.of(config.compute_dtype())),
                                              machine.cpu_name, machine.memory_bytes, costs);
  const StepTime predicted = predict_step(config, model, 1);
  PlanRow row{.name = shape.name,
              .precision = precision,
              .predicted_ms = 1e3 * predicted.seconds(),
              .measured_ms = bench.result().step_ms,
              .phases = {}};
  for (const PhaseTime& p : predicted.phases) row.phases[p.phase].predicted_ms = 1e3 * p.seconds();
  for (size_t i = 0; i < categories_ms.size(); ++i) {
    const double ms = quantile(categories_ms[i], 0.5);
    if (ms > 0) row.phases[std::string(kCategoryNames[i])].measured_ms = ms;
  }
  return row;
}

}  // namespace qstep::trainer
