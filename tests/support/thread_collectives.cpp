#include "tests/support/thread_collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "parallel/reduction_tree.h"

namespace qstep::test {
namespace {

using ops::Bf16;
using ops::Dtype;
using ops::Tensor;
using parallel::Reduce;
using Calls = std::span<const Operation* const>;

constexpr size_t kMostSums = 32;  // alive at once, for 2^31 ranks

char* byte_at(const Tensor& x, int64_t element) {
  return static_cast<char*>(x.data) + element * ops::size_bytes(x.dtype);
}

void copy(const Tensor& to, int64_t to_first, const Tensor& from, int64_t from_first, int64_t n) {
  if (n == 0 || (to.data == from.data && to_first == from_first)) return;
  std::memmove(byte_at(to, to_first), byte_at(from, from_first),
               static_cast<size_t>(n * ops::size_bytes(to.dtype)));
}

template <class T>
T& element(const Operation& call, int64_t i) {
  return call.x.as<T>()[i];
}

// Element i of all ranks, added in the tree of reduction_tree.h.
template <class T>
float tree_sum(Calls calls, int64_t i) {
  std::array<float, kMostSums> sums;
  size_t n_sums = 0;
  const auto n_ranks = static_cast<int64_t>(calls.size());
  for (int64_t rank = 0; rank < n_ranks; ++rank) {
    sums[n_sums++] = precision::to_float(element<T>(*calls[static_cast<size_t>(rank)], i));
    for (int64_t merge = parallel::merges_after(rank, n_ranks); merge > 0; --merge) {
      --n_sums;
      sums[n_sums - 1] += sums[n_sums];
    }
  }
  return sums[0];
}

int32_t wrapping_sum(Calls calls, int64_t i) {
  uint32_t sum = 0;
  for (const Operation* call : calls) sum += static_cast<uint32_t>(element<int32_t>(*call, i));
  return static_cast<int32_t>(sum);
}

template <class T>
T largest(Calls calls, int64_t i) {
  T most = element<T>(*calls[0], i);
  for (const Operation* call : calls) most = std::max(most, element<T>(*call, i));
  return most;
}

// Stores the reduced elements [first, last) on the ranks `to`.
template <class T, class F>
void reduce_range(Calls to, int64_t first, int64_t last, F&& reduced) {
  for (int64_t i = first; i < last; ++i) {
    const T value = reduced(i);
    for (const Operation* call : to) element<T>(*call, i) = value;
  }
}

void reduce(Calls calls, Calls to, int64_t first, int64_t last) {
  const bool sum = calls[0]->reduce == Reduce::kSum;
  switch (calls[0]->x.dtype) {
    case Dtype::kF32:
      return reduce_range<float>(to, first, last, [&](int64_t i) {
        return sum ? tree_sum<float>(calls, i) : largest<float>(calls, i);
      });
    case Dtype::kBf16:
      ops::check(sum, "BF16 has no maximum over ranks");
      return reduce_range<Bf16>(
          to, first, last, [&](int64_t i) { return precision::to_bf16(tree_sum<Bf16>(calls, i)); });
    case Dtype::kI32:
      return reduce_range<int32_t>(to, first, last, [&](int64_t i) {
        return sum ? wrapping_sum(calls, i) : largest<int32_t>(calls, i);
      });
    case Dtype::kU8:
      ops::check(false, "bytes cannot be reduced");
  }
}

void check_agreement(Calls calls) {
  const Operation& a = *calls[0];
  for (size_t r = 1; r < calls.size(); ++r) {
    const Operation& b = *calls[r];
    const bool same = a.kind == b.kind && a.x.dtype == b.x.dtype && a.x.size() == b.x.size() &&
                      a.reduce == b.reduce && a.bounds == b.bounds && a.peer == b.peer;
    ops::check(same, fmt::format("ranks disagree: rank {} calls {}, rank {} calls {} (or with "
                                 "other arguments)",
                                 a.group[0], describe(a), a.group[r], describe(b)));
  }
}

}  // namespace

std::string describe(const Operation& operation) {
  constexpr std::array kNames = {"all_reduce", "reduce_scatter", "all_gather", "broadcast",
                                 "all_to_all", "send",           "receive",    "barrier"};
  const char* name = kNames[static_cast<size_t>(operation.kind)];
  if (operation.kind == Collective::kBarrier) return name;
  return fmt::format("{} of {} {}", name, operation.x.size(), ops::name(operation.x.dtype));
}

void run_collective(Calls calls) {
  check_agreement(calls);
  const Operation& first = *calls[0];
  const std::vector<int64_t>& bounds = first.bounds;
  const auto n_ranks = static_cast<int64_t>(calls.size());
  switch (first.kind) {
    case Collective::kAllReduce:
      return reduce(calls, calls, 0, first.x.size());
    case Collective::kReduceScatter:
      for (size_t r = 0; r < calls.size(); ++r) {
        reduce(calls, calls.subspan(r, 1), bounds[r], bounds[r + 1]);
      }
      return;
    case Collective::kAllGather:
      for (size_t from = 0; from < calls.size(); ++from) {
        for (const Operation* to : calls) {
          copy(to->x, bounds[from], calls[from]->x, bounds[from], bounds[from + 1] - bounds[from]);
        }
      }
      return;
    case Collective::kBroadcast:
      for (size_t r = 0; r < calls.size(); ++r) {
        if (first.group[r] != first.peer) continue;
        for (const Operation* to : calls) copy(to->x, 0, calls[r]->x, 0, first.x.size());
      }
      return;
    case Collective::kAllToAll: {
      const int64_t part = first.x.size() / n_ranks;
      for (int64_t from = 0; from < n_ranks; ++from) {
        for (int64_t to = 0; to < n_ranks; ++to) {
          copy(calls[static_cast<size_t>(to)]->x, from * part, calls[static_cast<size_t>(from)]->in,
               to * part, part);
        }
      }
      return;
    }
    case Collective::kBarrier:
      return;
    case Collective::kSend:
    case Collective::kReceive:
      ops::check(false, "a message is no collective");
  }
}

void run_message(const Operation& send, const Operation& receive) {
  ops::check(send.x.dtype == receive.x.dtype && send.x.size() == receive.x.size(),
             fmt::format("rank {} calls {}, rank {} calls {}", receive.peer, describe(send),
                         send.peer, describe(receive)));
  copy(receive.x, 0, send.x, 0, send.x.size());
}

}  // namespace qstep::test
