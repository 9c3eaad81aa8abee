// Whole training runs of a comparison: each recipe from the same seeds, on the same data.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "ops/error.h"
#include "trainer/bench/compare_progress.h"
#include "trainer/bench/compare_state.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

struct LossTask {
  Config config;      // with the recipe; seed and run folder are set here
  size_t recipe = 0;  // its number
  uint64_t seed = 0;
  std::string folder;  // of the comparison
};

// <folder>/runs/<recipe's number>-<name>-s<seed>
std::string run_folder(const LossTask& task);

// Trains until the last step or a stop signal, going on where an earlier process stopped, and adds
// the loss of the last evaluation to the state, of which `save` then hears. The run's folder is
// that of qstep train, its printed lines go to log.txt there; its checkpoints are removed once the
// loss is saved. Returns what run_training does; losses that are not finite end the run, and are a
// result.
ops::ExitCode train_for_loss(CompareState& state, const LossTask& task, CompareProgress& progress,
                             const std::function<void()>& save);

}  // namespace qstep::trainer
