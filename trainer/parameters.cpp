#include "trainer/parameters.h"

namespace qstep::trainer {

using ops::Dtype;
using ops::Tensor;

namespace {

constexpr int64_t kAlignElements = 32;  // 64 bytes of BF16, 128 of FP32

int64_t aligned(int64_t n) { return (n + kAlignElements - 1) / kAlignElements * kAlignElements; }

}  // namespace

ParameterGroup lay_out_group(ops::Arena& arena, const ModelConfig& model, std::string_view owner,
                             Dtype dtype) {
  ParameterGroup group;
  int64_t total = 0;
  for (const WeightSpec& spec : weight_list(model)) total += aligned(spec.rows * spec.cols);
  group.flat = arena.take(owner, dtype, 1, total);
  int64_t offset = 0;
  for_each_weight(model, group.views, [&](const WeightSpec& spec, Tensor& view) {
    view = group.flat.col_range(offset, spec.rows * spec.cols).reshape(spec.rows, spec.cols);
    offset += aligned(spec.rows * spec.cols);
  });
  return group;
}

Parameters lay_out_parameters(ops::Arena& arena, const ModelConfig& model, Dtype dtype) {
  Parameters p;
  p.master = lay_out_group(arena, model, "master weights", Dtype::kF32);
  p.weight = dtype == Dtype::kF32 ? p.master : lay_out_group(arena, model, "weights", dtype);
  p.adam_m = lay_out_group(arena, model, "optimizer state", Dtype::kF32);
  p.adam_v = lay_out_group(arena, model, "optimizer state", Dtype::kF32);
  return p;
}

void init_parameters(ops::Ops& ops, const ModelConfig& model, Parameters& p, uint64_t seed) {
  uint32_t index = 0;
  std::vector<float> host;
  for_each_weight(model, p.master.views, [&](const WeightSpec& spec, Tensor& master) {
    host.resize(static_cast<size_t>(master.size()));
    init_weight(ops::view(std::span(host), spec.rows, spec.cols), spec, seed, index++);
    ops.upload(master, host.data());
  });
  if (p.weight.flat.dtype != Dtype::kF32) ops.cast(p.weight.flat, p.master.flat);
}

std::vector<NamedTensor> named_tensors(const ModelConfig& model, ParameterGroup& group,
                                       std::string_view prefix) {
  std::vector<NamedTensor> named;
  for_each_weight(model, group.views, [&](const WeightSpec& spec, Tensor& tensor) {
    named.push_back({fmt::format("{}/{}", prefix, spec.name), tensor});
  });
  return named;
}

std::vector<NamedTensor> named_tensors(const ModelConfig& model, Parameters& p) {
  std::vector<NamedTensor> all;
  const auto append = [&](ParameterGroup& group, std::string_view prefix) {
    for (NamedTensor& t : named_tensors(model, group, prefix)) all.push_back(std::move(t));
  };
  append(p.master, "master");
  append(p.adam_m, "adam_m");
  append(p.adam_v, "adam_v");
  return all;
}

}  // namespace qstep::trainer
