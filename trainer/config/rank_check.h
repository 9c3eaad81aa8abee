// Whether a number of ranks can share the steps of a configuration: groups of parallel.tensor ranks
// share the model (tensor_check.h), and the groups share the micro-batches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config/config.h"

namespace qstep::trainer {

// Data-parallel ranks, or groups, that can, ascending: each has the same number of micro-batches
// and, in tree order, a power of two of them, so that its sum is a node of the tree
// (parallel/reduction_tree.h). One always can.
std::vector<int64_t> possible_ranks(int64_t micros_per_step, Reduction reduction);

// Every reason why `n_ranks`, all of the run, cannot, those of tensor_problems included, with
// values that work; empty when they can.
std::vector<std::string> rank_problems(const Config& config, int64_t n_ranks);

// Throws them as one Error (config).
void require_ranks(const Config& config, int64_t n_ranks);

}  // namespace qstep::trainer
