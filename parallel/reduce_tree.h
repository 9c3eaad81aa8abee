// What ranks hold, added up in the tree of reduction_tree.h: the arithmetic of every reduction,
// whatever carried the messages.
#pragma once

#include <cstdint>
#include <span>

#include "ops/tensor.h"
#include "parallel/comm.h"

namespace qstep::parallel {

// FP32, BF16 and int32 have a sum, FP32 and int32 a maximum; an Error otherwise.
void check_reducible(ops::Dtype dtype, Reduce reduce);

// In which type partial results travel and are added: FP32 for BF16, else the type itself.
constexpr ops::Dtype partial_dtype(ops::Dtype dtype) {
  return dtype == ops::Dtype::kBf16 ? ops::Dtype::kF32 : dtype;
}

// out[i] = source[0][i] op source[1][i] op ..., i in [0, n), the sources being the leaves of the
// tree in order; one source is converted only. Sources are of type `dtype`; `out` is of the same
// type or, where that is BF16, of either of BF16 and FP32, and FP32 sources may make a BF16 `out`.
// FP32 inside, rounded once, to nearest even; int32 sums wrap; a maximum with a NaN is NaN. `out`
// may be one of the sources. One thread.
void reduce_tree(void* out, ops::Dtype out_dtype, std::span<const void* const> sources,
                 ops::Dtype dtype, int64_t n, Reduce reduce);

}  // namespace qstep::parallel
