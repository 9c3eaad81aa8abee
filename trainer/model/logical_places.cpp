#include "trainer/model/logical_places.h"

#include "ops/error.h"

namespace qstep::trainer {

using ops::LogicalPlace;
using ops::SplitDim;
using precision::LinearTensor;

namespace {

// All blocks have the same shapes.
const WeightSpec& weight_of(const ModelWeights<WeightSpec>& weights, LinearKind kind) {
  const BlockWeights<WeightSpec>& block = weights.blocks.front();
  switch (kind) {
    case LinearKind::kQkv:
      return block.qkv;
    case LinearKind::kAttnOut:
      return block.attn_out;
    case LinearKind::kUp:
      return block.up;
    case LinearKind::kDown:
      return block.down;
  }
  ops::check(false, "logical_places: no such layer");
  return block.qkv;
}

}  // namespace

std::array<LogicalPlace, 3> logical_places(const ModelConfig& model, LinearKind kind,
                                           const TensorPlace& place) {
  std::array<LogicalPlace, 3> places;
  if (place.size == 1) return places;
  ModelWeights<WeightSpec> weights;
  for_each_weight(model, weights, [](const WeightSpec& spec, WeightSpec& kept) { kept = spec; });
  const WeightSpec& spec = weight_of(weights, kind);
  const bool by_rows = spec.split == TensorSplit::kRows;

  LogicalPlace cut;
  cut.size = by_rows ? spec.rows : spec.cols;
  int64_t first = 0;
  for (const LocalBlock& block : local_blocks(spec, place)) {
    cut.stretches[static_cast<size_t>(cut.n_stretches++)] = {
        .first = first, .logical = by_rows ? block.first_row : block.first_col};
    first += by_rows ? block.rows : block.cols;
  }
  const auto set = [&](LinearTensor tensor, SplitDim split) {
    LogicalPlace& p = places[static_cast<size_t>(tensor)];
    p = cut;
    p.split = split;
  };
  set(LinearTensor::kW, by_rows ? SplitDim::kRows : SplitDim::kCols);
  set(by_rows ? LinearTensor::kDy : LinearTensor::kX, SplitDim::kCols);
  return places;
}

}  // namespace qstep::trainer
