#include "ops/reduce.h"

#include <cmath>

#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

// sums[c] = the sum over the groups of sixteen in chunk c of x of what `add(sum, x)` adds.
template <class F>
void sum_chunks(float* sums, const float* x, int64_t n, F&& add) {
  parallel_blocks(n, kReduceChunk, [&](int64_t first, int64_t size) {
    const float* const chunk = x + first;
    sums[first / kReduceChunk] = sum_groups(size, [&](F32x16 sum, int64_t i, int64_t lanes) {
      return add(sum, load_n(chunk + i, lanes));
    });
  });
}

double in_order(const float* x, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(x[i]);
  return total;
}

}  // namespace

void mean(const Tensor& out, const Tensor& x, Workspace& workspace) {
  check_mean(out, x);
  const int64_t n_chunks = reduce_chunks(x.size());
  float* const sums = workspace.take<float>(n_chunks);
  sum_chunks(sums, x.as<float>(), x.size(), [](F32x16 s, F32x16 v) { return s + v; });
  const double sum = in_order(sums, n_chunks);
  *out.as<float>() = static_cast<float>(sum / static_cast<double>(x.size()));
}

void square_sums(const Tensor& sums, const Tensor& g) {
  check_square_sums(sums, g);
  sum_chunks(sums.as<float>(), g.as<float>(), g.size(),
             [](F32x16 s, F32x16 v) { return fma(v, v, s); });
}

void norm_of_sums(const Tensor& norm, const Tensor& sums) {
  check_norm_of_sums(norm, sums);
  *norm.as<float>() = static_cast<float>(std::sqrt(in_order(sums.as<float>(), sums.size())));
}

}  // namespace qstep::ops::cpu
