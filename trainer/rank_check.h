// Whether a number of data-parallel ranks can share the steps of a configuration.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config.h"

namespace qstep::trainer {

// Ranks that can, ascending: every rank has the same number of micro-batches and, in tree order, a
// power of two of them, so that its sum is a node of the tree (parallel/reduction_tree.h). One
// always can.
std::vector<int64_t> possible_ranks(int64_t micros_per_step, Reduction reduction);

// Why `n_ranks` cannot, with values that work; empty when they can.
std::vector<std::string> rank_problems(const Config& config, int64_t n_ranks);

// Throws them as one Error (config).
void require_ranks(const Config& config, int64_t n_ranks);

}  // namespace qstep::trainer
