// A comparison of recipes from start to end: its folder, what is left to measure, its results.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/error.h"
#include "trainer/compare_state.h"
#include "trainer/compare_steps.h"
#include "trainer/config.h"

namespace qstep::trainer {

struct CompareOptions {
  std::vector<std::string> recipes;  // names or paths; the first is the baseline
  Config config{};                   // of all of them but for the recipe
  int64_t blocks = 8;                // of each pair; 0: no step times
  int64_t warmup = 10, steps = 20;   // of a segment
  bool noise_floor = false;          // also the baseline against itself
  bool observer = false;             // also the baseline without timing against itself with it
  int64_t seeds = 0;                 // training runs of each recipe, from config.train.seed on
  AbbaOptions abba{};
  std::string folder;
};

struct CompareOutcome {
  ops::ExitCode code = ops::ExitCode::kOk;  // kPreempted, kTimeLimit: the same call goes on
  CompareState state;
};

// Measures what the folder lacks, saves after every segment and run, writes compare.json and
// compare.md. Says on stderr how far it is. Error (config) where the folder holds another
// comparison, or where something cannot be compared.
CompareOutcome run_compare(const CompareOptions& options, const CompareSeams& seams = {});

}  // namespace qstep::trainer
