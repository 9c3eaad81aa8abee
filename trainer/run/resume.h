// Where a training run takes up: which checkpoint, and whether it fits.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "data/token_store.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/run/run_dir.h"

namespace qstep::trainer {

// The checkpoint that run.resume asks for; null for a new run.
//   never  Error (config) when the folder holds a run already.
//   auto   the newest of the run folder that verifies; Error (checkpoint) when none of them does.
//   PATH   that one, or what the run folder has already made of it since: the same command can be
//          started again. Error (config) when PATH is itself an older checkpoint of the run folder.
// Cleans up what killed saves left in the run folder. All ranks together: `dir` counts on the
// first, the checkpoint is verified once, by all of them, and open on all.
std::unique_ptr<CheckpointReader> checkpoint_to_resume(parallel::Comm& comm, const Config& config,
                                                       const RunDir* dir);

// A checkpoint continues only with the model and tokenizer that it was trained with, and with the
// same corpus unless data.allow_change is set. Throws Error (config, data).
void check_continues(const Config& config, const data::TokenStore& store,
                     const CheckpointReader& checkpoint);

// Fills the state of the recipe (Trainer::precision_state) as far as the checkpoint has it; the
// rest stays as a new run begins. Of an amax history of another length the newest steps are taken,
// and steps that it lacks are 0: the note that is returned says so; otherwise it is empty.
std::string read_precision_state(const CheckpointReader& checkpoint,
                                 std::span<const NamedTensor> tensors);

// What the user should know of settings that changed since the checkpoint; empty when none did.
std::string resume_note(const Config& config, const CheckpointReader& checkpoint);

}  // namespace qstep::trainer
