// Which weights travel together between the data-parallel ranks, and which elements of them a rank
// owns: keeps the master weights and moments of, and updates (ZeRO stage 1, Rajbhandari et al.
// 2020). Arithmetic on the list of weights.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/model/weight_split.h"
#include "trainer/model/weights.h"

namespace qstep::trainer {

// The flat arrays (ParameterGroup): every weight begins at a multiple of kAlignElements, every
// bucket at a multiple of kShardUnit, which is what the gradient norm is summed by: a rank that
// owns whole units can sum its part of it. A bucket begins with the weights that tensor parallelism
// cuts; those that it does not cut follow from a multiple of kShardUnit on, so that a tensor group
// can count them once. The order is the same for every size of the group, one included.
inline constexpr int64_t kAlignElements = 32;  // 64 bytes of BF16, 128 of FP32
inline constexpr int64_t kShardUnit = 4096;

struct PlacedWeight {
  WeightSpec spec;    // of the whole weight
  LocalShape local;   // of this rank's part of it
  int64_t first = 0;  // element of the flat arrays

  int64_t size() const { return local.rows * local.cols; }
};

// Elements [first, first + size) of the flat arrays.
struct Bucket {
  int64_t first = 0, size = 0;
  // The first split_size of them are of the weights that are cut, the others of those that all
  // ranks of a tensor group have, and update alike.
  int64_t split_size = 0;
  // Rank r owns [first + bounds[r], first + bounds[r + 1]); whole units.
  std::vector<int64_t> bounds;
};

// A run of the flat arrays that this rank owns, and where it lies in the arrays of owned elements.
struct OwnedRun {
  int64_t first = 0, size = 0;
  int64_t offset = 0;
};

struct ShardPlan {
  OptimizerState state = OptimizerState::kSharded;
  int n_ranks = 1, rank = 0;  // that are data parallel
  TensorPlace tensor;
  std::vector<PlacedWeight> weights;  // in the order of the list, which is not that of the places
  int64_t total = 0;                  // elements of the flat arrays
  std::vector<Bucket> buckets;        // WeightSpec::bucket
  std::vector<OwnedRun> owned;        // one per bucket
  int64_t owned_total = 0;

  // Every data-parallel rank owns all elements.
  bool whole() const { return state == OptimizerState::kReplicated || n_ranks == 1; }
};

// Rank `rank` of `n_ranks` that are data parallel, and rank `tensor` of its tensor group.
// Replicated: every rank owns everything, and bounds are those of the sharded plan all the same.
ShardPlan plan_shards(const ModelConfig& model, OptimizerState state, int n_ranks, int rank,
                      const TensorPlace& tensor = {});

// The plan of one rank.
inline ShardPlan plan_shards(const ModelConfig& model) {
  return plan_shards(model, OptimizerState::kSharded, 1, 0);
}

}  // namespace qstep::trainer
