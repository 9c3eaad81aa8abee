// A trainer's checkpoint, from whatever memory its backend has, and back.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/config/config.h"
#include "trainer/quantizers/host_tensors.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer::testing {

// Weights, moments and the state of the recipe.
inline std::vector<NamedTensor> all_tensors(Trainer& trainer) {
  std::vector<NamedTensor> tensors = named_tensors(trainer.shards(), trainer.parameters());
  for (NamedTensor& t : trainer.precision_state()) tensors.push_back(std::move(t));
  return tensors;
}

inline void save_trainer(ops::Ops& ops, Trainer& trainer, int64_t step, const std::string& folder) {
  const Config& config = trainer.config();
  CheckpointState state;
  state.step = step;
  state.vocab_size = config.model.vocab_size;
  state.config_toml = to_toml(config);
  state.recipe_toml = to_toml(config.precision.loaded);
  state.tokenizer = "bytes";
  const HostTensors saved(ops, all_tensors(trainer));
  save_checkpoint(folder, state, saved.tensors(), 0);
}

inline void load_trainer(ops::Ops& ops, Trainer& trainer, int64_t step, const std::string& folder) {
  const CheckpointReader checkpoint(folder + "/" + step_folder(step));
  HostTensors tensors(ops, all_tensors(trainer));
  for (const NamedTensor& tensor : tensors.tensors()) checkpoint.read(tensor);
  tensors.upload();
  trainer.refresh_weights();
  trainer.set_steps_done(step);
}

}  // namespace qstep::trainer::testing
