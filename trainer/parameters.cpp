#include "trainer/parameters.h"

namespace qstep::trainer {

using ops::Dtype;
using ops::Tensor;

namespace {

// The flat array, and views of it at the weights' places.
ParameterGroup with_views(const ModelConfig& model, const ShardPlan& plan, const Tensor& flat) {
  ParameterGroup group;
  group.flat = flat;
  auto placed = plan.weights.begin();
  for_each_weight(model, group.views, [&](const WeightSpec& spec, Tensor& view) {
    view = flat.col_range(placed->first, placed->size()).reshape(spec.rows, spec.cols);
    ++placed;
  });
  return group;
}

}  // namespace

ParameterGroup lay_out_group(ops::Arena& arena, const ModelConfig& model, const ShardPlan& plan,
                             std::string_view owner, Dtype dtype) {
  return with_views(model, plan, arena.take(owner, dtype, 1, plan.total));
}

Parameters lay_out_parameters(ops::Arena& arena, const ModelConfig& model, const ShardPlan& plan,
                              Dtype dtype) {
  const auto owned = [&](std::string_view owner) {
    const Tensor flat = arena.take(owner, Dtype::kF32, 1, plan.owned_total);
    if (plan.whole()) return with_views(model, plan, flat);
    return ParameterGroup{flat, {}};
  };
  Parameters p;
  p.master = owned("master weights");
  const bool is_master = dtype == Dtype::kF32 && plan.whole();
  p.weight = is_master ? p.master : lay_out_group(arena, model, plan, "weights", dtype);
  p.adam_m = owned("optimizer state");
  p.adam_v = owned("optimizer state");
  return p;
}

void init_parameters(ops::Ops& ops, const ShardPlan& plan, Parameters& p,
                     const ParameterGroup& scratch, uint64_t seed) {
  ops.zero(scratch.flat);
  uint32_t index = 0;
  std::vector<float> host;
  for (const PlacedWeight& weight : plan.weights) {
    host.resize(static_cast<size_t>(weight.size()));
    init_weight(ops::view(std::span(host), weight.spec.rows, weight.spec.cols), weight.spec, seed,
                index++);
    ops.upload(scratch.flat.col_range(weight.first, weight.size()), host.data());
  }
  for (const OwnedRun& run : plan.owned) {
    ops.cast(p.master.flat.col_range(run.offset, run.size),
             scratch.flat.col_range(run.first, run.size));
  }
  ops.cast(p.weight.flat, scratch.flat);
  ops.zero(scratch.flat);
}

std::vector<NamedTensor> named_tensors(const ModelConfig& model, ParameterGroup& group,
                                       std::string_view prefix) {
  std::vector<NamedTensor> named;
  for_each_weight(model, group.views, [&](const WeightSpec& spec, Tensor& tensor) {
    named.push_back({fmt::format("{}/{}", prefix, spec.name), tensor});
  });
  return named;
}

std::vector<NamedTensor> named_tensors(const ShardPlan& plan, const Parameters& p) {
  std::vector<NamedTensor> named;
  const auto append = [&](const ParameterGroup& group, std::string_view prefix) {
    for (const PlacedWeight& weight : plan.weights) {
      const OwnedRun& run = plan.owned[static_cast<size_t>(weight.spec.bucket)];
      const int64_t first = std::max(weight.first, run.first);
      const int64_t end = std::min(weight.first + weight.size(), run.first + run.size);
      if (end <= first) continue;
      const Tensor held = group.flat.col_range(run.offset + first - run.first, end - first);
      const Slice all = whole(weight.spec.rows, weight.spec.cols);
      const std::string name = fmt::format("{}/{}", prefix, weight.spec.name);
      if (plan.whole()) {
        named.push_back({name, held.reshape(all.rows, all.cols)});
      } else {
        named.push_back({name, held, run_of(all, first - weight.first, end - first)});
      }
    }
  };
  append(p.master, "master");
  append(p.adam_m, "adam_m");
  append(p.adam_v, "adam_v");
  return named;
}

std::vector<NamedTensor> saved_tensors(const ShardPlan& plan, const Parameters& p) {
  return named_tensors(plan, p);
}

}  // namespace qstep::trainer
