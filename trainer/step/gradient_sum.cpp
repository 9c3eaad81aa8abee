#include "trainer/step/gradient_sum.h"

#include <algorithm>
#include <array>
#include <span>

#include "ops/elementwise.h"
#include "parallel/reduction_tree.h"

namespace qstep::trainer {

namespace {

// f(merges) for each pass over memory that `merges` additions in a row take.
template <class F>
void for_each_pass(int64_t merges, F&& f) {
  for (auto left = static_cast<size_t>(merges); left > 0;) {
    const size_t n = std::min(left, ops::kMaxAddends - 1);
    f(n);
    left -= n;
  }
}

}  // namespace

std::vector<ParameterGroup> GradientSum::lay_out(ops::Arena& arena, const ModelConfig& model,
                                                 const ShardPlan& plan, Reduction reduction,
                                                 int64_t n_micros) {
  std::vector<ParameterGroup> buffers;
  const int64_t n = reduction == Reduction::kTree ? parallel::tree_buffers(n_micros) : 1;
  for (int64_t i = 0; i < n; ++i) {
    buffers.push_back(lay_out_group(arena, model, plan, "gradients", ops::Dtype::kF32));
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

int64_t GradientSum::path(int64_t micro) const {
  if (reduction_ == Reduction::kRank) return micro == 0 ? 0 : 1;
  return static_cast<int64_t>(depth_) * (n_micros_ + 1) + parallel::merges_after(micro, n_micros_);
}

void GradientSum::add_up(ops::Ops& ops, int64_t micro, int64_t first, int64_t size) {
  if (reduction_ == Reduction::kRank) return;
  size_t top = depth_;
  for_each_pass(parallel::merges_after(micro, n_micros_), [&](size_t n) {
    std::array<ops::Tensor, ops::kMaxAddends> sums;
    for (size_t i = 0; i <= n; ++i) sums[i] = buffers_[top - n + i].flat.col_range(first, size);
    ops.add(sums[0], std::span(sums).first(n + 1));
    top -= n;
  });
}

GradientSum::Passes GradientSum::passes(Reduction reduction, int64_t n_micros) {
  Passes all;
  if (reduction == Reduction::kRank) return all;
  for (int64_t micro = 0; micro < n_micros; ++micro) {
    for_each_pass(parallel::merges_after(micro, n_micros), [&](size_t n) {
      all.n += 1;
      all.bytes_per_element += (static_cast<int64_t>(n) + 2) * ops::size_bytes(ops::Dtype::kF32);
    });
  }
  return all;
}

void GradientSum::finished(int64_t micro) {
  if (reduction_ == Reduction::kRank) return;
  depth_ += 1 - static_cast<size_t>(parallel::merges_after(micro, n_micros_));
}

}  // namespace qstep::trainer
