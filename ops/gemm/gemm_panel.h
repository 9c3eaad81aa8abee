// The inner loop of a GEMM whose operands carry a factor per tile of the summed dimension: one
// panel of rows times one panel of columns over one tile.
//
// A panel holds words of two consecutive k (the even one in the lower half, as it lies in memory),
// word after word of k, kPanelRows or kPanelColumns of them each: the order in which the loop
// reads.
#pragma once

#include <cstdint>
#include <string_view>

#include "ops/simd/simd.h"

namespace qstep::ops {

inline constexpr int64_t kPanelRows = 8;
inline constexpr int64_t kPanelColumns = 3 * kLanes;

// y[r,c] = fma(fl(p[r,c] sa[r]), sb[c], y[r,c])     y [kPanelRows, kPanelColumns] FP32
// p[r,c] = sum over n_words words of a[word][r] . b[word][c], FP32
using PanelKernel = void (*)(float* y, const uint32_t* a, const uint32_t* b, int64_t n_words,
                             const float* sa, const float* sb);

// Fused multiply-adds in FP32, even k before odd k: any machine.
void multiply_panels_fp32(float* y, const uint32_t* a, const uint32_t* b, int64_t n_words,
                          const float* sa, const float* sb);

// The BF16 pair product of the processor (AVX512_BF16), whatever the build is for; null without.
PanelKernel bf16_panel_kernel();

// The fastest of this machine.
PanelKernel panel_kernel();

}  // namespace qstep::ops
