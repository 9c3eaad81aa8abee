#include "trainer/optimizer.h"

namespace qstep::trainer {

using ops::Tensor;

namespace {

// Neighbouring weights with the same decay are one stretch of the flat arrays.
struct Stretch {
  int64_t first = 0, size = 0;
  Decay decay = Decay::kNo;
};

template <class F>
void for_each_stretch(const ModelConfig& model, ParameterGroup& group, F&& f) {
  const auto* const base = static_cast<const char*>(group.flat.data);
  const int64_t item = ops::size_bytes(group.flat.dtype);
  Stretch open;
  for_each_weight(model, group.views, [&](const WeightSpec& spec, Tensor& view) {
    const int64_t first = (static_cast<const char*>(view.data) - base) / item;
    if (open.size > 0 && spec.decay != open.decay) {
      f(open);
      open.size = 0;
    }
    if (open.size == 0) open = {first, 0, spec.decay};
    open.size = first + view.size() - open.first;
  });
  if (open.size > 0) f(open);
}

}  // namespace

void adamw_update(ops::Ops& ops, const ModelConfig& model, Parameters& p, ParameterGroup& grads,
                  const Tensor& factor, const OptimizerConfig& config, double lr, int64_t t) {
  for_each_stretch(model, grads, [&](const Stretch& s) {
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
  });
}

}  // namespace qstep::trainer
