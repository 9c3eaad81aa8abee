#include "ops/peak_kernels.h"

#include "ops/simd/simd.h"

namespace qstep::ops {

namespace {

// Independent sums in flight, of sixteen floats each: more than latency times throughput (4 cycles
// x 2), and no more than the registers hold (32 of sixteen, or 16 of eight less two constants).
constexpr int kChains = QSTEP_AVX512 ? 16 : 6;

// Values stay finite for any number of turns: x -> x / 2 + 1.
float run_fp32(int64_t n_turns) {
  F32x16 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast(static_cast<float>(i));
  const F32x16 half = broadcast(0.5f), one = broadcast(1.0f);
  for (int64_t turn = 0; turn < n_turns; ++turn) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = fma(sums[i], half, one);
  }
  float sum = 0;
  for (const F32x16& x : sums) sum += reduce_add(x);
  return sum;
}

#if defined(__AVX512BF16__)
// Sixteen sums of two products each. The products are zero, and the time does not depend on values.
float run_bf16(int64_t n_turns) {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f));
  const auto b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.0f), _mm512_set1_ps(0.0f));
  for (int64_t turn = 0; turn < n_turns; ++turn) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  }
  float sum = 0;
  for (const __m512 x : sums) sum += _mm512_reduce_add_ps(x);
  return sum;
}
#endif

}  // namespace

RegisterChain fp32_chain() { return {run_fp32, 2.0 * kChains * kLanes}; }

RegisterChain bf16_chain() {
#if defined(__AVX512BF16__)
  return {run_bf16, 4.0 * kChains * kLanes};
#else
  return {};
#endif
}

void triad(float* a, const float* b, const float* c, float s, int64_t n) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
}

}  // namespace qstep::ops
