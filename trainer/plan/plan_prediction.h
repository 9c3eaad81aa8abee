// The predicted step as qstep plan shows it: tables for people, one object for scripts.
#pragma once

#include <nlohmann/json.hpp>

#include "trainer/plan/mesh_sweep.h"

namespace qstep::trainer {

struct Prediction {
  StepTime step, bf16;       // of the recipe, and of bf16 on the same mesh
  int64_t memory_bytes = 0;  // of the first rank
  std::vector<SweepRow> sweep;

  double gain() const { return bf16.seconds() / step.seconds(); }
};

// Throws what predict_step throws.
Prediction predict(const Config& config, const MachineModel& machine, int n_ranks, bool sweep);

void print_prediction(const Prediction& prediction, const Config& config,
                      const MachineModel& machine);
nlohmann::ordered_json to_json(const Prediction& prediction, const MachineModel& machine);

}  // namespace qstep::trainer
