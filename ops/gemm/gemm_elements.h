// What the CUDA backend does around a library's products, an element at a time, on the device and
// in the tests on the host:
//   the factor of quantized operands, from scales that are in device memory   gemm_factor
//   sums of partial products with a factor per tile of k                      gemm_tiled.h
//   what is left behind the sum: factor, bias and d, and the rounding to d
#pragma once

#include "ops/group.h"
#include "ops/operand.h"
#include "precision/lanes.h"

namespace qstep::ops::device {

// factors = {gemm_factor, beta}
struct GemmFactors {
  float* factors;
  const float *a_scale, *b_scale;  // null: 1
  float a_denominator, b_denominator;
  float alpha, beta;

  QSTEP_HD void operator()(int64_t) const {
    const float sa = a_scale != nullptr ? *a_scale : 1.0f;
    const float sb = b_scale != nullptr ? *b_scale : 1.0f;
    factors[0] = alpha * sa * sb * (1.0f / (a_denominator * b_denominator));
    factors[1] = beta;
  }
};

// Factor per tile of an operand's rows, at one tile of k.
struct TileFactors {
  const float* scales = nullptr;  // [rows / tile_rows, k / tile_k]; null: 1
  int64_t tile_rows = 1, per_row = 0, column = 0;

  QSTEP_HD float of_row(int64_t row) const {
    return scales == nullptr ? 1.0f : scales[row / tile_rows * per_row + column];
  }
};

// y = fma(fl(p sa), sb, y) for a tile of k; the first one begins from 0. p, y [m,n] contiguous.
struct AddTileProduct {
  float* y;
  const float* p;
  int64_t n;
  TileFactors a, b;
  bool first;

  QSTEP_HD void operator()(int64_t i) const {
    const float scaled = p[i] * a.of_row(i / n);
    y[i] = precision::fma(scaled, b.of_row(i % n), first ? 0.0f : y[i]);
  }
};

// d = round(fl(fl(fl(factor y) + bias) + d)); y [m,n] contiguous. y may be d.
template <class Out, class BiasType>
struct FinishProduct {
  Out* d;
  const float* y;
  const float* factor;   // null: 1
  const BiasType* bias;  // null: none
  int64_t n, ld;
  bool accumulate;

  QSTEP_HD void operator()(int64_t i) const {
    const int64_t row = i / n, col = i % n;
    float x = y[i] * (factor != nullptr ? *factor : 1.0f);
    if (bias != nullptr) x = x + precision::to_float(bias[col]);
    Out& out = d[row * ld + col];
    if (accumulate) x = x + precision::to_float(out);
    put(out, x);
  }
};

// *different = 1 where any of n words of a and b differ, otherwise 0. For one team: it runs when a
// plan is made.
struct FindDifference {
  int32_t* different;
  const uint32_t *a, *b;
  int64_t n;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t) const {
    const float found = team.max(n, [&](int64_t i) { return a[i] != b[i] ? 1.0f : 0.0f; });
    if (team.leader()) *different = found > 0;
  }
};

}  // namespace qstep::ops::device
