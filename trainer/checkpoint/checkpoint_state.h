// state.json: everything of a checkpoint that is not a tensor or a file of its own.
#pragma once

#include <string>

#include "trainer/checkpoint/checkpoint.h"

namespace qstep::trainer {

// JSON text of all fields but tokenizer_model.
std::string state_to_json(const CheckpointState& state);

// The inverse. `where` names the text in the Error (checkpoint) for missing or ill-typed fields.
CheckpointState state_from_json(const std::string& text, const std::string& where);

}  // namespace qstep::trainer
