#include "trainer/shard_plan.h"

#include "ops/reduce.h"
#include "parallel/shards.h"

namespace qstep::trainer {

static_assert(kShardUnit == ops::kReduceChunk);

namespace {

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

ShardPlan plan_shards(const ModelConfig& model, OptimizerState state, int n_ranks, int rank,
                      const TensorPlace& tensor) {
  ShardPlan plan;
  plan.tensor = tensor;
  plan.buckets.resize(static_cast<size_t>(n_buckets(model)));
  for (const WeightSpec& spec : weight_list(model)) {
    Bucket& bucket = plan.buckets[static_cast<size_t>(spec.bucket)];
    if (bucket.size == 0) bucket.first = plan.total = round_up(plan.total, kShardUnit);
    plan.weights.push_back({spec, {spec.rows, spec.cols}, plan.total});
    plan.total = round_up(plan.total + spec.rows * spec.cols, kAlignElements);
    bucket.size = round_up(plan.total - bucket.first, kShardUnit);
  }
  plan.total = round_up(plan.total, kShardUnit);

  const auto r = static_cast<size_t>(rank);
  for (Bucket& bucket : plan.buckets) {
    bucket.bounds = parallel::even_bounds(bucket.size, n_ranks, kShardUnit);
    const bool all = state == OptimizerState::kReplicated;
    const int64_t first = all ? 0 : bucket.bounds[r];
    const int64_t size = all ? bucket.size : bucket.bounds[r + 1] - first;
    plan.owned.push_back({bucket.first + first, size, plan.owned_total});
    plan.owned_total += size;
  }
  return plan;
}

}  // namespace qstep::trainer
