// What the benchmarks of the GPU share: one operation at a time on tensors in device memory, timed
// by events on the stream of the backend. What it has to do comes from trainer/timing/op_work.h, so
// that its bytes are counted in one place.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace qstep::bench {

using ops::Dtype;
using ops::Tensor;

// The tensors of a case: laid out twice, by a measuring and by a placing arena, then filled.
class Tensors {
 public:
  Tensors(ops::Ops& ops, ops::Arena& arena) : ops_(ops), arena_(arena) {}

  ops::Ops& ops() { return ops_; }
  ops::Arena& arena() { return arena_; }
  Tensor zeros(Dtype dtype, int64_t rows, int64_t cols) {
    return arena_.take("bench", dtype, rows, cols);
  }
  // Uniform in [-1, 1).
  Tensor random(Dtype dtype, int64_t rows, int64_t cols);
  // [1, n] int32 below `vocab`.
  Tensor tokens(int64_t n, int64_t vocab);

  void fill() const;

 private:
  struct Fill {
    Tensor tensor;
    int64_t vocab = 0;  // of tokens
  };
  ops::Ops& ops_;
  ops::Arena& arena_;
  std::vector<Fill> fills_;
};

struct GpuCalls {
  // Empty where this GPU does not have the operation.
  std::function<void(ops::Ops&)> timed;
  std::function<void(ops::Ops&)> before = {};  // once, not timed
};

struct GpuCase {
  std::string name;
  std::function<GpuCalls(Tensors&)> make;
  // Bytes that the operation moves beside those of op_work.h: passes over a source that its
  // definition asks for.
  double more_bytes = 0;
};

// Norms, activations, losses, the optimizer: bound by bytes.
std::vector<GpuCase> memory_cases();
// Both operands of a tensor, as recipes make them.
std::vector<GpuCase> quantizer_cases();
// GEMMs of every format and attention: bound by flops.
std::vector<GpuCase> product_cases();

}  // namespace qstep::bench
