// The fixed binary tree in which the gradients of a step's G micro-batches are added.
//
// Leaves are micro-batches in order; neighbours of equal size are added as soon as both exist, like
// the carries of a binary counter; what is left at the end is added from the right. The tree
// depends on G alone, so any rank that owns an aligned, contiguous run of leaves computes one of
// its subtrees, and the step has the same bits for every number of ranks.
#pragma once

#include <bit>
#include <cstdint>

namespace qstep::parallel {

// How many times the sum on top of the stack is added to the one below after leaf `micro` was
// pushed.
constexpr int64_t merges_after(int64_t micro, int64_t n_micros) {
  const bool last = micro + 1 == n_micros;
  const auto pushed = static_cast<uint64_t>(micro) + 1;
  // A counter holding `pushed` keeps one sum per set bit; the last leaf folds them all into one.
  return last ? std::popcount(pushed - 1) : std::countr_zero(pushed);
}

// Sums alive at once, the leaf being computed included: floor(log2 G) + 1.
constexpr int64_t tree_buffers(int64_t n_micros) {
  return static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(n_micros)));
}

}  // namespace qstep::parallel
