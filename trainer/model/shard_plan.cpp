#include "trainer/model/shard_plan.h"

#include <algorithm>
#include <span>

#include "ops/reduce.h"
#include "parallel/shards.h"

namespace qstep::trainer {

static_assert(kShardUnit == ops::kReduceChunk);

namespace {

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

enum class Cut : uint8_t { kNo, kYes };

// Those of `weights` that are cut, or those that are not, one behind the other from `end` on; the
// new end is a whole unit.
void place_weights(std::span<PlacedWeight> weights, Cut cut, int64_t& end) {
  for (PlacedWeight& weight : weights) {
    if ((weight.spec.split != TensorSplit::kNone) != (cut == Cut::kYes)) continue;
    weight.first = end;
    end = round_up(end + weight.size(), kAlignElements);
  }
  end = round_up(end, kShardUnit);
}

}  // namespace

ShardPlan plan_shards(const ModelConfig& model, OptimizerState state, int n_ranks, int rank,
                      const TensorPlace& tensor) {
  ShardPlan plan;
  plan.state = state;
  plan.n_ranks = n_ranks;
  plan.rank = rank;
  plan.tensor = tensor;
  for (const WeightSpec& spec : weight_list(model)) {
    plan.weights.push_back({spec, local_shape(spec, tensor.size), 0});
  }
  auto next = plan.weights.begin();
  for (int64_t b = 0; b < n_buckets(model); ++b) {
    const auto first = next;
    next = std::find_if(first, plan.weights.end(),
                        [&](const PlacedWeight& weight) { return weight.spec.bucket != b; });
    Bucket bucket;
    bucket.first = plan.total;
    place_weights({first, next}, Cut::kYes, plan.total);
    bucket.split_size = plan.total - bucket.first;
    place_weights({first, next}, Cut::kNo, plan.total);
    bucket.size = plan.total - bucket.first;
    bucket.bounds = parallel::even_bounds(bucket.size, n_ranks, kShardUnit);
    plan.buckets.push_back(std::move(bucket));
  }
  ops::check(next == plan.weights.end(), "the list of weights is not in the order of the buckets");

  const auto r = static_cast<size_t>(rank);
  for (const Bucket& bucket : plan.buckets) {
    const int64_t first = plan.whole() ? 0 : bucket.bounds[r];
    const int64_t size = plan.whole() ? bucket.size : bucket.bounds[r + 1] - first;
    plan.owned.push_back({bucket.first + first, size, plan.owned_total});
    plan.owned_total += size;
  }
  return plan;
}

}  // namespace qstep::trainer
