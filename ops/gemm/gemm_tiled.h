// GEMM of BF16 operands with a factor per tile along k (FP8 blocks, outer scales per row or group;
// numerics 6 and 7.5):
//   p[m,n,t] = sum over the k of tile t of a[m,k] b[n,k], FP32
//   y = fma(fl(p[m,n,t] sa[m,t]), sb[n,t], y), t ascending from y = 0, FP32
//   d = round(fl(fl(fl(factor y) + bias) + d)), factor = gemm_factor
// An operand without tile scales has factors 1. The last tiles may be ragged.
//
// oneDNN would give the partial products and a second pass the sums; a loop of its own keeps both
// in registers. Operands are copied into panels first (ops/gemm/gemm_panel.h). The same bits for
// any number of threads.
#pragma once

#include <algorithm>

#include "ops/gemm/gemm_panel.h"
#include "ops/ops.h"
#include "ops/workspace.h"

namespace qstep::ops {

inline bool tiled(const Operand& x) { return x.tile_scales != nullptr; }
// How many k share a factor.
inline int64_t tile_k(const Operand& x) { return tiled(x) ? std::min(x.tile_k, x.k) : x.k; }

// Both BF16; tiles of an even number of k or the whole of it; where the tiles of a and b differ,
// one a multiple of the other.
void check_tiles(const Operand& a, const Operand& b);

namespace cpu {

// After check_gemm.
void gemm_tiled(const Tensor& d, const Operand& a, const Operand& b, float factor,
                Accumulate accumulate, const Tensor& bias, Workspace& workspace,
                PanelKernel kernel = panel_kernel());

}  // namespace cpu
}  // namespace qstep::ops
