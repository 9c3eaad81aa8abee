// A comparison of recipes from start to end: its folder, what is left to measure, its results.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/error.h"
#include "trainer/bench/compare_state.h"
#include "trainer/bench/compare_steps.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

// How the steps of a pair are cut: blocks of four segments, each of so many steps that count behind
// so many that do not.
struct Segments {
  int64_t blocks, warmup, steps;
};
// Where both sides are in memory of the host, neighbours in time are compared: what slows a
// machine down for a while slows both. A GPU's clock follows what it has been doing, so that each
// side needs time of its own, as does one that is built anew for every segment.
inline constexpr Segments kStepByStep{.blocks = 40, .warmup = 0, .steps = 1};
inline constexpr Segments kLongSegments{.blocks = 8, .warmup = 10, .steps = 20};

struct CompareOptions {
  std::vector<std::string> recipes;  // names or paths; the first is the baseline
  Config config{};                   // of all of them but for the recipe
  // Those of the machine where not given. No blocks: no step times.
  std::optional<int64_t> blocks{}, warmup{}, steps{};
  bool noise_floor = false;  // also the baseline against itself
  bool observer = false;     // also the baseline without timing against itself with it
  int64_t seeds = 0;         // training runs of each recipe, from config.train.seed on
  AbbaOptions abba{};
  std::string folder;
};

struct CompareOutcome {
  ops::ExitCode code = ops::ExitCode::kOk;  // kPreempted, kTimeLimit: the same call goes on
  CompareState state;
};

// Measures what the folder lacks, saves every few seconds and behind every run, writes compare.json
// and compare.md. Says on stderr how far it is. Error (config) where the folder holds another
// comparison, or where something cannot be compared.
CompareOutcome run_compare(const CompareOptions& options, const CompareSeams& seams = {});

}  // namespace qstep::trainer
