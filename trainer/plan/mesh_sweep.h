// Which mesh and micro-batch a machine runs a configuration fastest on, by prediction.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/plan/step_model.h"

namespace qstep::trainer {

struct SweepRow {
  int64_t tensor = 1, data = 1, micro_batch = 1;
  int64_t memory_bytes = 0;  // of the first rank (machine_memory)
  bool fits = false;         // in the machine's memory
  StepTime time;
};

// Every tensor size that the model, the recipe and the machine's link allow and every micro-batch,
// a power of two, that the global batch can be cut into over n_ranks. Those that fit come first,
// the fastest first. Empty where no split comes out even.
std::vector<SweepRow> sweep_meshes(const Config& config, const MachineModel& machine, int n_ranks);

}  // namespace qstep::trainer
