#include "trainer/bench/bench_recipes.h"

#include "trainer/step/out_of_memory.h"

namespace qstep::trainer {

namespace {

BenchRatio in_turn(StepBench& baseline, const Config& config, parallel::Comm& world, int64_t warmup,
                   int64_t steps) {
  StepBench other(config, world);
  for (int64_t i = 0; i < warmup; ++i) {
    baseline.warm_up();
    other.warm_up();
  }
  std::vector<double> baseline_ms, other_ms, ratios;
  for (int64_t round = 0; round < (steps + 1) / 2; ++round) {
    const double a1 = baseline.time(), b1 = other.time(), b2 = other.time(), a2 = baseline.time();
    baseline_ms.insert(baseline_ms.end(), {a1, a2});
    other_ms.insert(other_ms.end(), {b1, b2});
    ratios.push_back((b1 + b2) / (a1 + a2));
  }
  return {.recipe = other.result(),
          .ratio = quantile(other_ms, 0.5) / quantile(baseline_ms, 0.5),
          .lower_quartile = quantile(ratios, 0.25),
          .upper_quartile = quantile(ratios, 0.75)};
}

}  // namespace

BenchComparison bench_recipes(std::span<const Config> configs, parallel::Comm& world,
                              int64_t warmup, int64_t steps) {
  StepBench baseline(configs[0], world);
  BenchComparison comparison;
  for (const Config& config : configs.subspan(1)) {
    comparison.others.push_back(
        naming_both([&] { return in_turn(baseline, config, world, warmup, steps); },
                    configs[0].precision.recipe, config.precision.recipe,
                    "give --precision one recipe at a time"));
  }
  comparison.baseline = baseline.result();
  return comparison;
}

}  // namespace qstep::trainer
