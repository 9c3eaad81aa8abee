#include "ops/reduce.h"

#include <cmath>

#include "ops/parallel_for.h"
#include "ops/simd.h"

namespace qstep::ops::cpu {

namespace {

// The sum over all groups of sixteen of what `add(sum, x)` adds.
template <class F>
double sum_chunks(const float* x, int64_t n, Workspace& workspace, F&& add) {
  const int64_t n_chunks = (n + kReduceChunk - 1) / kReduceChunk;
  float* const partial = workspace.take<float>(n_chunks);
  parallel_blocks(n, kReduceChunk, [&](int64_t first, int64_t size) {
    const float* const chunk = x + first;
    partial[first / kReduceChunk] = sum_groups(size, [&](F32x16 sum, int64_t i, int64_t lanes) {
      return add(sum, load_n(chunk + i, lanes));
    });
  });
  double total = 0;
  for (int64_t i = 0; i < n_chunks; ++i) total += static_cast<double>(partial[i]);
  return total;
}

}  // namespace

void mean(const Tensor& out, const Tensor& x, Workspace& workspace) {
  check_mean(out, x);
  const double sum =
      sum_chunks(x.as<float>(), x.size(), workspace, [](F32x16 s, F32x16 v) { return s + v; });
  *out.as<float>() = static_cast<float>(sum / static_cast<double>(x.size()));
}

void grad_norm(const Tensor& norm, const Tensor& g, Workspace& workspace) {
  check_grad_norm(norm, g);
  const double sum = sum_chunks(g.as<float>(), g.size(), workspace,
                                [](F32x16 s, F32x16 v) { return fma(v, v, s); });
  *norm.as<float>() = static_cast<float>(std::sqrt(sum));
}

}  // namespace qstep::ops::cpu
