// qstep bench step: the time of whole training steps on synthetic tokens.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "trainer/config.h"
#include "trainer/timeline.h"

namespace qstep::trainer {

struct BenchStepResult {
  double step_ms = 0;            // median
  PhaseTimes phases_ms{};        // medians, each of its own
  double tokens_per_s = 0;       // at the median
  double model_flops_per_s = 0;  // causal attention
  int64_t peak_rss_bytes = 0;
  float first_loss = 0, last_loss = 0;
};

// `warmup` steps that are not counted, then `steps` that are, on tokens drawn from the seed.
BenchStepResult bench_step(const Config& config, int64_t warmup, int64_t steps);

void add_bench_step(CLI::App& bench, int& exit_code);

}  // namespace qstep::trainer
