#include "trainer/gradient_sum.h"

#include "parallel/reduction_tree.h"

namespace qstep::trainer {

std::vector<ParameterGroup> GradientSum::lay_out(ops::Arena& arena, const ModelConfig& model,
                                                 Reduction reduction, int64_t n_micros) {
  std::vector<ParameterGroup> buffers;
  const int64_t n = reduction == Reduction::kTree ? parallel::tree_buffers(n_micros) : 1;
  for (int64_t i = 0; i < n; ++i) {
    buffers.push_back(lay_out_group(arena, model, "gradients", ops::Dtype::kF32));
  }
  return buffers;
}

GradientSum::Target GradientSum::target(int64_t micro) {
  if (reduction_ == Reduction::kRank) {
    return {buffers_.front(), micro == 0 ? ops::Accumulate::kNo : ops::Accumulate::kYes};
  }
  if (micro == 0) depth_ = 0;
  return {buffers_[depth_], ops::Accumulate::kNo};
}

void GradientSum::finished(ops::Ops& ops, int64_t micro) {
  if (reduction_ == Reduction::kRank) return;
  ++depth_;
  for (int64_t i = parallel::merges_after(micro, n_micros_); i > 0; --i) {
    const ops::Tensor& below = buffers_[depth_ - 2].flat;
    ops.add(below, below, buffers_[depth_ - 1].flat);
    --depth_;
  }
}

}  // namespace qstep::trainer
