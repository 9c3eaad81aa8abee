// Weights, gradients and optimizer state in memory: each group is one flat array of all weights
// (shard_plan.h), of a tensor-parallel rank of its parts of them (weight_split.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/model/shard_plan.h"
#include "trainer/model/weights.h"

namespace qstep::trainer {

// One flat array and the weights' views of it, matrices of the shape PlacedWeight::local.
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
  // FP32: the runs that this rank owns, one behind the other [1, owned]. Where every rank owns
  // everything (ShardPlan::whole) the views are there, and in FP32 `weight` is `master`.
  ParameterGroup master, adam_m, adam_v;
};

Parameters lay_out_parameters(ops::Arena& arena, const ModelConfig& model, const ShardPlan& plan,
                              ops::Dtype dtype);

// Sets the master weights from the seed, the compute weights from them; the moments are left at
// zero. A part of a weight has the bits of the whole one. `scratch` is a whole FP32 group that may
// be overwritten; it is zero afterwards.
void init_parameters(ops::Ops& ops, const ShardPlan& plan, Parameters& parameters,
                     const ParameterGroup& scratch, uint64_t seed);

// The tensors of master, adam_m and adam_v by their checkpoint names
// ("master/blocks.0.qkv.weight"), as far as this rank owns them: what it reads from a checkpoint.
// Whole ones where the rank owns all elements of the model; otherwise one for every run that it
// owns of a block of a weight.
std::vector<NamedTensor> named_tensors(const ShardPlan& plan, const Parameters& parameters);
// Those of them that this rank writes, every element once: what several ranks own, the first of
// them alone.
std::vector<NamedTensor> saved_tensors(const ShardPlan& plan, const Parameters& parameters);

// A whole group's tensors alone, "<prefix>/<weight>".
std::vector<NamedTensor> named_tensors(const ModelConfig& model, ParameterGroup& group,
                                       std::string_view prefix);

}  // namespace qstep::trainer
