// Whether parallel.tensor ranks can share the model, the recipe and the micro-batches of a
// configuration. How many ranks a run has is not looked at (rank_check.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config/config.h"

namespace qstep::trainer {

// Values of parallel.tensor that can, ascending; 1 always. The model is sound (model_problems). A
// vocabulary that is not known yet counts as divisible.
std::vector<int64_t> possible_tensors(const Config& config);

// Every reason why parallel.tensor cannot, one text each, which begins with that option and ends
// with values that work: heads, features, rows of the embedding or tokens that do not come out
// even, and operands whose blocks a rank's share would cut. Empty when it can.
std::vector<std::string> tensor_problems(const Config& config);

}  // namespace qstep::trainer
