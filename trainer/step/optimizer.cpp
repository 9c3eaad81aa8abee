#include "trainer/step/optimizer.h"

#include <algorithm>

namespace qstep::trainer {

using ops::Tensor;

std::vector<DecayStretch> decay_stretches(const ShardPlan& plan) {
  std::vector<const PlacedWeight*> by_place;
  for (const PlacedWeight& weight : plan.weights) by_place.push_back(&weight);
  std::sort(by_place.begin(), by_place.end(),
            [](const PlacedWeight* a, const PlacedWeight* b) { return a->first < b->first; });
  std::vector<DecayStretch> stretches;
  int64_t bucket = -1;
  for (const PlacedWeight* weight : by_place) {
    if (weight->spec.bucket != bucket || weight->spec.decay != stretches.back().decay) {
      stretches.push_back({weight->first, 0, weight->spec.decay});
      bucket = weight->spec.bucket;
    }
    stretches.back().size = weight->first + weight->size() - stretches.back().first;
  }
  return stretches;
}

void adamw_update(ops::Ops& ops, std::span<const DecayStretch> stretches, const OwnedRun& run,
                  const Parameters& p, const ParameterGroup& grads, const Tensor& factor,
                  const OptimizerConfig& config, double lr, int64_t t) {
  for (const DecayStretch& s : stretches) {
    const int64_t first = std::max(s.first, run.first);
    const int64_t n = std::min(s.first + s.size, run.first + run.size) - first;
    if (n <= 0) continue;
    const auto whole = [&](const ParameterGroup& group) { return group.flat.col_range(first, n); };
    const auto owned = [&](const ParameterGroup& group) {
      return group.flat.col_range(run.offset + first - run.first, n);
    };
    ops.adamw(
        whole(p.weight), owned(p.master), owned(p.adam_m), owned(p.adam_v), whole(grads), factor,
        {.lr = static_cast<float>(lr),
         .beta1 = static_cast<float>(config.beta1),
         .beta2 = static_cast<float>(config.beta2),
         .eps = static_cast<float>(config.eps),
         .weight_decay = s.decay == Decay::kYes ? static_cast<float>(config.weight_decay) : 0.0f,
         .t = t});
  }
}

}  // namespace qstep::trainer
