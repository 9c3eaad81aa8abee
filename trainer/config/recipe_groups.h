// A recipe laid over a model, as people read it: which layers have the same operands, from step to
// step.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/config/layer_precision.h"

namespace qstep::trainer {

// Linear layers with the same operands.
struct LayerGroup {
  precision::OperandTable table;
  std::vector<int64_t> modules;  // ascending
};

struct PhaseGroups {
  int64_t first_step = 1, last_step = 1;
  std::vector<LayerGroup> groups;  // by their first layer
};

// Of the configuration's recipe over its train.steps; one phase with one group where nothing is
// quantized.
std::vector<PhaseGroups> groups_of(const Config& config);

}  // namespace qstep::trainer
