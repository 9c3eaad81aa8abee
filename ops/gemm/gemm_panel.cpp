#include "ops/gemm/gemm_panel.h"

#include "precision/lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qstep::ops {

namespace {

constexpr int kVectors = kPanelColumns / kLanes;

// Sixteen words as the two numbers in each.
struct Pair {
  F32x16 even, odd;
};
inline Pair load_words(const uint32_t* p) {
  alignas(64) float even[kLanes], odd[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    even[i] = precision::from_bits(p[i] << 16);
    odd[i] = precision::from_bits(p[i] & 0xFFFF0000u);
  }
  return {load(even), load(odd)};
}

}  // namespace

void multiply_panels_fp32(float* y, const uint32_t* a, const uint32_t* b, int64_t n_words,
                          const float* sa, const float* sb) {
  constexpr int kRows = 4;  // sums of sixteen that fit into the registers of AVX2
  static_assert(kPanelRows % kRows == 0);
  for (int64_t r = 0; r < kPanelRows; r += kRows) {
    for (int64_t c = 0; c < kPanelColumns; c += kLanes) {
      F32x16 p[kRows];
      for (F32x16& sum : p) sum = broadcast(0.0f);
      for (int64_t w = 0; w < n_words; ++w) {
        const Pair right = load_words(b + w * kPanelColumns + c);
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
          const uint32_t left = a[w * kPanelRows + r + i];
          p[i] = fma(broadcast(precision::from_bits(left << 16)), right.even, p[i]);
          p[i] = fma(broadcast(precision::from_bits(left & 0xFFFF0000u)), right.odd, p[i]);
        }
      }
      for (int i = 0; i < kRows; ++i) {
        float* const out = y + (r + i) * kPanelColumns + c;
        store(out, fma(p[i] * broadcast(sa[r + i]), load(sb + c), load(out)));
      }
    }
  }
}

#if defined(__x86_64__)

namespace {

// 24 sums, three vectors of b and one broadcast word: 28 of the 32 registers.
__attribute__((target("avx512f,avx512bf16"))) void multiply_panels_bf16(float* y, const uint32_t* a,
                                                                        const uint32_t* b,
                                                                        int64_t n_words,
                                                                        const float* sa,
                                                                        const float* sb) {
  __m512 p[kPanelRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) p[r][v] = _mm512_setzero_ps();
  }
  for (int64_t w = 0; w < n_words; ++w) {
    __m512bh right[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) right[v] = (__m512bh)_mm512_loadu_si512(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kPanelRows; ++r) {
      const __m512bh left = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r]));
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) p[r][v] = _mm512_dpbf16_ps(p[r][v], left, right[v]);
    }
    a += kPanelRows;
    b += kPanelColumns;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kPanelRows; ++r) {
    const __m512 row_factor = _mm512_set1_ps(sa[r]);
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      float* const out = y + r * kPanelColumns + v * kLanes;
      _mm512_storeu_ps(
          out, _mm512_fmadd_ps(_mm512_mul_ps(p[r][v], row_factor), _mm512_loadu_ps(sb + v * kLanes),
                               _mm512_loadu_ps(out)));
    }
  }
}

}  // namespace

PanelKernel bf16_panel_kernel() {
  const bool has = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f");
  return has ? multiply_panels_bf16 : nullptr;
}

#else

PanelKernel bf16_panel_kernel() { return nullptr; }

#endif

PanelKernel panel_kernel() {
  const PanelKernel bf16 = bf16_panel_kernel();
  return bf16 != nullptr ? bf16 : multiply_panels_fp32;
}

}  // namespace qstep::ops
