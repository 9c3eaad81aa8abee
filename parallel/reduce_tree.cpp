#include "parallel/reduce_tree.h"

#include <algorithm>
#include <array>

#include "parallel/combine.h"
#include "parallel/reduction_tree.h"

namespace qstep::parallel {

namespace {

using ops::Dtype;

// Elements that go through the whole tree before the next ones: a few levels of the tree stay in
// the first cache (1 KB each), and loops are long enough to vectorise.
constexpr int64_t kTile = 256;

template <class Out, class In, class Op>
void reduce(Out* out, std::span<const void* const> sources, int64_t n, Op op) {
  using Value = decltype(widen(In{}));
  const auto n_sources = static_cast<int64_t>(sources.size());
  alignas(64) std::array<std::array<Value, kTile>, kTreeLevels> partial;
  for (int64_t first = 0; first < n; first += kTile) {
    const int64_t size = std::min(kTile, n - first);
    size_t top = 0;  // partial results on the stack
    for (int64_t leaf = 0; leaf < n_sources; ++leaf) {
      const In* const x = static_cast<const In*>(sources[static_cast<size_t>(leaf)]) + first;
      int64_t merges = merges_after(leaf, n_sources);
      if (merges > 0) {  // the leaf itself needs no place of its own
        Value* const low = partial[top - 1].data();
        for (int64_t i = 0; i < size; ++i) low[i] = op(low[i], widen(x[i]));
        --merges;
      } else {
        Value* const place = partial[top++].data();
        for (int64_t i = 0; i < size; ++i) place[i] = widen(x[i]);
      }
      for (; merges > 0; --merges, --top) {
        Value* const low = partial[top - 2].data();
        const Value* const high = partial[top - 1].data();
        for (int64_t i = 0; i < size; ++i) low[i] = op(low[i], high[i]);
      }
    }
    for (int64_t i = 0; i < size; ++i) narrow(out[first + i], partial[0][static_cast<size_t>(i)]);
  }
}

}  // namespace

void check_reducible(Dtype dtype, Reduce reduce) {
  const bool fits =
      reduce == Reduce::kSum ? dtype != Dtype::kU8 : dtype == Dtype::kF32 || dtype == Dtype::kI32;
  ops::check(fits, fmt::format("ranks cannot form the {} of {} elements",
                               reduce == Reduce::kSum ? "sum" : "maximum", ops::name(dtype)));
}

void reduce_tree(void* out, Dtype out_dtype, std::span<const void* const> sources, Dtype dtype,
                 int64_t n, Reduce op) {
  check_reducible(dtype, op);
  ops::check_equal(ops::name(partial_dtype(dtype)), ops::name(partial_dtype(out_dtype)),
                   "reduce_tree: type of the result");
  ops::check(!sources.empty() && sources.size() < size_t{1} << (kTreeLevels - 1),
             "reduce_tree: number of sources");
  const auto run = [&](auto out_value, auto in_value) {
    using Out = decltype(out_value);
    using In = decltype(in_value);
    Out* const result = static_cast<Out*>(out);
    if (op == Reduce::kSum) {
      reduce<Out, In>(result, sources, n, Sum());
    } else {
      reduce<Out, In>(result, sources, n, Max());
    }
  };
  if (dtype == Dtype::kI32) return run(int32_t{}, int32_t{});
  ops::dispatch_float(out_dtype,
                      [&](auto o) { ops::dispatch_float(dtype, [&](auto i) { run(o, i); }); });
}

}  // namespace qstep::parallel
