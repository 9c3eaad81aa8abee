// The gradient of a step on one rank: the sum over its micro-batches, in one of two orders.
//
// kTree: each micro-batch writes a buffer of its own and the buffers are added in the fixed tree of
// parallel/reduction_tree.h: the same bits however the micro-batches are spread over ranks.
// kRank: one buffer, every micro-batch adds to it: less memory, equal bits for an equal layout
// only.
#pragma once

#include <vector>

#include "trainer/config/config.h"
#include "trainer/model/parameters.h"

namespace qstep::trainer {

class GradientSum {
 public:
  static std::vector<ParameterGroup> lay_out(ops::Arena& arena, const ModelConfig& model,
                                             const ShardPlan& plan, Reduction reduction,
                                             int64_t n_micros);

  GradientSum(std::vector<ParameterGroup> buffers, Reduction reduction, int64_t n_micros)
      : buffers_(std::move(buffers)), reduction_(reduction), n_micros_(n_micros) {}

  // Where micro-batch `micro` (in order, from 0) puts its gradient, and whether it adds.
  struct Target {
    ParameterGroup& group;
    ops::Accumulate accumulate;
  };
  Target target(int64_t micro);
  // Behind target(): equal for micro-batches whose gradients take the same way, calls alike.
  int64_t path(int64_t micro) const;

  // Once the micro-batch's gradient of elements [first, first + size) is complete: adds it to the
  // sums that wait for it, several in one pass. Every element once, in any order.
  void add_up(ops::Ops& ops, int64_t micro, int64_t first, int64_t size);
  // Once all of it was added up.
  void finished(int64_t micro);

  // What add_up() does in a step of n_micros micro-batches: passes over the gradient, and the bytes
  // per element that they read and write.
  struct Passes {
    int64_t n = 0, bytes_per_element = 0;
  };
  static Passes passes(Reduction reduction, int64_t n_micros);

  // The sum: of elements that were added up, after the last micro-batch.
  ParameterGroup& total() { return buffers_.front(); }

 private:
  std::vector<ParameterGroup> buffers_;
  Reduction reduction_;
  int64_t n_micros_;
  size_t depth_ = 0;  // buffers that hold sums; the next one is free
};

}  // namespace qstep::trainer
