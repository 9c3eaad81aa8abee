// Weights, gradients and optimizer state in memory: each group is one flat array in the order of
// the list of weights, every weight aligned inside it (shard_plan.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/checkpoint.h"
#include "trainer/shard_plan.h"
#include "trainer/weights.h"

namespace qstep::trainer {

// One flat array and the weights' views of it.
struct ParameterGroup {
  ops::Tensor flat;  // [1, total], zero between the weights
  ModelWeights<ops::Tensor> views;
};

// `owner` names the row of the memory table.
ParameterGroup lay_out_group(ops::Arena& arena, const ModelConfig& model, const ShardPlan& plan,
                             std::string_view owner, ops::Dtype dtype);

// What training keeps from step to step.
struct Parameters {
  ParameterGroup weight;  // compute type
  // FP32: the runs that this rank owns, one behind the other [1, owned]; the views are there where
  // it owns everything. In FP32 `weight` is `master` then.
  ParameterGroup master, adam_m, adam_v;
};

Parameters lay_out_parameters(ops::Arena& arena, const ModelConfig& model, const ShardPlan& plan,
                              ops::Dtype dtype);

// Sets the master weights from the seed, the compute weights from them; the moments are left at
// zero. `scratch` is a whole FP32 group that may be overwritten; it is zero afterwards.
void init_parameters(ops::Ops& ops, const ShardPlan& plan, Parameters& parameters,
                     const ParameterGroup& scratch, uint64_t seed);

// Checkpoint names of all tensors of all groups, as far as this rank owns them:
// "master/blocks.0.qkv.weight", ...
std::vector<NamedTensor> named_tensors(const ShardPlan& plan, const Parameters& parameters);
// Those of them that this rank writes into a checkpoint: of a tensor group, the first rank alone
// writes what all of it have.
std::vector<NamedTensor> saved_tensors(const ShardPlan& plan, const Parameters& parameters);

// A whole group's tensors alone, "<prefix>/<weight>".
std::vector<NamedTensor> named_tensors(const ModelConfig& model, ParameterGroup& group,
                                       std::string_view prefix);

}  // namespace qstep::trainer
