#include "trainer/optimizer.h"

namespace qstep::trainer {

using ops::Tensor;

std::vector<DecayStretch> decay_stretches(const ModelConfig& model, ParameterGroup& group) {
  const auto* const base = static_cast<const char*>(group.flat.data);
  const int64_t item = ops::size_bytes(group.flat.dtype);
  std::vector<DecayStretch> stretches;
  for_each_weight(model, group.views, [&](const WeightSpec& spec, Tensor& view) {
    const int64_t first = (static_cast<const char*>(view.data) - base) / item;
    if (stretches.empty() || spec.decay != stretches.back().decay) {
      stretches.push_back({first, 0, spec.decay});
    }
    stretches.back().size = first + view.size() - stretches.back().first;
  });
  return stretches;
}

void adamw_update(ops::Ops& ops, std::span<const DecayStretch> stretches, Parameters& p,
                  ParameterGroup& grads, const Tensor& factor, const OptimizerConfig& config,
                  double lr, int64_t t) {
  for (const DecayStretch& s : stretches) {
    const auto part = [&](const ParameterGroup& group) {
      return group.flat.col_range(s.first, s.size);
    };
    ops.adamw(
        part(p.weight), part(p.master), part(p.adam_m), part(p.adam_v), part(grads), factor,
        {.lr = static_cast<float>(lr),
         .beta1 = static_cast<float>(config.beta1),
         .beta2 = static_cast<float>(config.beta2),
         .eps = static_cast<float>(config.eps),
         .weight_decay = s.decay == Decay::kYes ? static_cast<float>(config.weight_decay) : 0.0f,
         .t = t});
  }
}

}  // namespace qstep::trainer
