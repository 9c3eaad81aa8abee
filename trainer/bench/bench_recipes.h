// The step times of several recipes against the first of them, measured in turn in one process.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/bench/bench_step.h"

namespace qstep::trainer {

struct BenchRatio {
  BenchStepResult recipe;
  // Medians of the steps that were timed in turn with the baseline's.
  double ratio = 0;
  // Quartiles of the rounds' own ratios: how far the machine let it vary.
  double lower_quartile = 0, upper_quartile = 0;
};

struct BenchComparison {
  BenchStepResult baseline;        // of all its steps
  std::vector<BenchRatio> others;  // in the order given
};

// configs[0] is the baseline A. Every other recipe B takes turns with it: `warmup` steps of each
// that are not counted, then rounds of A B B A, two steps of each, in which a drift of the
// machine's speed cancels to first order. `steps` of each are timed, rounded up to whole rounds. At
// most two models are in memory at once. All ranks of `world` together.
BenchComparison bench_recipes(std::span<const Config> configs, parallel::Comm& world,
                              int64_t warmup, int64_t steps);

}  // namespace qstep::trainer
