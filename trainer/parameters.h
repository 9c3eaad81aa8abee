// Weights, gradients and optimizer state in memory: each group is one flat array in the order of
// the list of weights, every weight aligned inside it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/checkpoint.h"
#include "trainer/weights.h"

namespace qstep::trainer {

// One flat array and the weights' views of it.
struct ParameterGroup {
  ops::Tensor flat;  // [1, total], zero between the weights
  ModelWeights<ops::Tensor> views;
};

// `owner` names the row of the memory table.
ParameterGroup lay_out_group(ops::Arena& arena, const ModelConfig& model, std::string_view owner,
                             ops::Dtype dtype);

// What training keeps from step to step. In FP32 `weight` is `master`.
struct Parameters {
  ParameterGroup weight;                  // compute type
  ParameterGroup master, adam_m, adam_v;  // FP32
};

Parameters lay_out_parameters(ops::Arena& arena, const ModelConfig& model, ops::Dtype dtype);

// Sets the master weights from the seed, the compute weights from them; the moments are left at
// zero.
void init_parameters(ops::Ops& ops, const ModelConfig& model, Parameters& parameters,
                     uint64_t seed);

// Checkpoint names of all tensors of all groups: "master/blocks.0.qkv.weight", ...
std::vector<NamedTensor> named_tensors(const ModelConfig& model, Parameters& parameters);

// A group's tensors alone, "<prefix>/<weight>".
std::vector<NamedTensor> named_tensors(const ModelConfig& model, ParameterGroup& group,
                                       std::string_view prefix);

}  // namespace qstep::trainer
