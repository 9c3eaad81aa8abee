// What every world checks before it begins a collective: an Error at once, on the rank that is
// wrong, instead of ranks that wait for each other.
#pragma once

#include <algorithm>
#include <string_view>

#include "parallel/comm.h"

namespace qstep::parallel {

inline void check_memory(const ops::Tensor& x) {
  ops::check(x.contiguous(), "a collective needs a contiguous tensor");
  ops::check(x.data != nullptr || x.size() == 0, "a collective needs a tensor with memory");
}

inline void check_bounds(Bounds bounds, const ops::Tensor& x, int n_ranks) {
  ops::check_equal(static_cast<size_t>(n_ranks) + 1, bounds.size(), "collective: number of bounds");
  ops::check(std::is_sorted(bounds.begin(), bounds.end()), "collective: bounds must ascend");
  ops::check_equal(0, bounds.front(), "collective: first bound");
  ops::check_equal(x.size(), bounds.back(), "collective: last bound");
}

inline void check_rank(int rank, int n_ranks, std::string_view what) {
  ops::check(rank >= 0 && rank < n_ranks,
             fmt::format("{}: there is no rank {} in a group of {}", what, rank, n_ranks));
}

// The other side of a send or receive.
inline void check_peer(int peer, int rank, int n_ranks) {
  check_rank(peer, n_ranks, "send, receive");
  ops::check(peer != rank, "send, receive: a rank does not talk to itself");
}

inline void check_scattered(const ops::Tensor& x) {
  ops::check(x.dtype == ops::Dtype::kF32 || x.dtype == ops::Dtype::kBf16,
             "reduce_scatter: expected a floating-point tensor");
}

inline void check_all_to_all(const ops::Tensor& out, const ops::Tensor& in, int n_ranks) {
  ops::check_equal(in.size(), out.size(), "all_to_all: elements of the result");
  ops::check_equal(ops::name(in.dtype), ops::name(out.dtype), "all_to_all: type of the result");
  ops::check_equal(0, in.size() % n_ranks, "all_to_all: elements left over by equal parts");
  check_memory(in);
  check_memory(out);
  const char* const a = static_cast<const char*>(out.data);
  const char* const b = static_cast<const char*>(in.data);
  ops::check(in.size() == 0 || a + out.bytes() <= b || b + in.bytes() <= a,
             "all_to_all: the result lies on what is sent");
}

}  // namespace qstep::parallel
