#include "trainer/model/parameters.h"

#include <algorithm>

namespace qstep::trainer {

using ops::Dtype;
using ops::Tensor;

namespace {

// The flat array, and views of it at the weights' places.
ParameterGroup with_views(const ModelConfig& model, const ShardPlan& plan, const Tensor& flat) {
  ParameterGroup group;
  group.flat = flat;
  auto placed = plan.weights.begin();
  for_each_weight(model, group.views, [&](const WeightSpec&, Tensor& view) {
    const auto [rows, cols] = placed->local;
    view = flat.col_range(placed->first, placed->size()).reshape(rows, cols);
    ++placed;
  });
  return group;
}

// part = the rank's blocks of `whole`, one behind the other
void copy_blocks(std::vector<float>& part, const std::vector<float>& whole, const WeightSpec& spec,
                 const TensorPlace& place) {
  part.clear();
  for (const LocalBlock& block : local_blocks(spec, place)) {
    for (int64_t row = 0; row < block.rows; ++row) {
      const auto from = whole.begin() + (block.first_row + row) * spec.cols + block.first_col;
      part.insert(part.end(), from, from + block.cols);
    }
  }
}

// Calls f(tensor, slice) for every run of elements of a weight that this rank owns in `group` and
// that one block of it holds.
template <class F>
void for_each_owned_run(const ShardPlan& plan, const PlacedWeight& weight,
                        const ParameterGroup& group, F&& f) {
  const WeightSpec& spec = weight.spec;
  const OwnedRun& run = plan.owned[static_cast<size_t>(spec.bucket)];
  for (const LocalBlock& b : local_blocks(spec, plan.tensor)) {
    const int64_t begin = weight.first + b.first;
    const int64_t first = std::max(begin, run.first);
    const int64_t n = std::min(begin + b.size(), run.first + run.size) - first;
    if (n <= 0) continue;
    f(group.flat.col_range(run.offset + first - run.first, n),
      run_of(block(spec.rows, spec.cols, b.first_row, b.first_col, b.rows, b.cols), first - begin,
             n));
  }
}

// Of master, adam_m and adam_v the tensors of those weights that `wanted` wants.
template <class F>
std::vector<NamedTensor> owned_tensors(const ShardPlan& plan, const Parameters& p, F&& wanted) {
  std::vector<NamedTensor> named;
  const bool complete = plan.whole() && plan.tensor.size == 1;
  const auto append = [&](const ParameterGroup& group, std::string_view prefix) {
    for (const PlacedWeight& weight : plan.weights) {
      if (!wanted(weight.spec)) continue;
      const std::string name = fmt::format("{}/{}", prefix, weight.spec.name);
      for_each_owned_run(plan, weight, group, [&](const Tensor& held, const Slice& slice) {
        if (complete) {
          named.push_back({name, held.reshape(slice.rows, slice.cols)});
        } else {
          named.push_back({name, held, slice});
        }
      });
    }
  };
  append(p.master, "master");
  append(p.adam_m, "adam_m");
  append(p.adam_v, "adam_v");
  return named;
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
  std::vector<float> whole, part;
  for (const PlacedWeight& weight : plan.weights) {
    const WeightSpec& spec = weight.spec;
    whole.resize(static_cast<size_t>(spec.rows * spec.cols));
    init_weight(ops::view(std::span(whole), spec.rows, spec.cols), spec, seed, index++);
    copy_blocks(part, whole, spec, plan.tensor);
    ops.upload(scratch.flat.col_range(weight.first, weight.size()), part.data());
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
  return owned_tensors(plan, p, [](const WeightSpec&) { return true; });
}

std::vector<NamedTensor> saved_tensors(const ShardPlan& plan, const Parameters& p) {
  if (plan.whole() && plan.rank != 0) return {};
  return owned_tensors(plan, p, [&](const WeightSpec& spec) {
    return spec.split != TensorSplit::kNone || plan.tensor.rank == 0;
  });
}

}  // namespace qstep::trainer
