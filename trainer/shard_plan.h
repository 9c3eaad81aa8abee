// Which weights travel together between the data-parallel ranks, and which elements of them a rank
// owns: keeps the master weights and moments of, and updates (ZeRO stage 1, Rajbhandari et al.
// 2020). Arithmetic on the list of weights.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/config.h"
#include "trainer/weight_split.h"
#include "trainer/weights.h"

namespace qstep::trainer {

// The flat arrays (ParameterGroup): every weight begins at a multiple of kAlignElements, every
// bucket at a multiple of kShardUnit, which is what the gradient norm is summed by: a rank that
// owns whole units can sum its part of it.
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
  // The first of them are of the weights that tensor parallelism cuts, the others are of those that
  // all ranks of a tensor group have, and update alike; whole units of both.
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
  TensorPlace tensor;
  std::vector<PlacedWeight> weights;  // in the order of the list
  int64_t total = 0;                  // elements of the flat arrays
  std::vector<Bucket> buckets;        // WeightSpec::bucket
  std::vector<OwnedRun> owned;        // one per bucket
  int64_t owned_total = 0;

  bool whole() const { return owned_total == total; }
};

// Rank `rank` of `n_ranks` that are data parallel, each a rank `tensor` of a tensor group.
// Replicated: every rank owns everything, and bounds are those of the sharded plan all the same.
ShardPlan plan_shards(const ModelConfig& model, OptimizerState state, int n_ranks, int rank,
                      const TensorPlace& tensor = {});

// The plan of one rank.
inline ShardPlan plan_shards(const ModelConfig& model) {
  return plan_shards(model, OptimizerState::kSharded, 1, 0);
}

}  // namespace qstep::trainer
