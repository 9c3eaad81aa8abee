// What the ledger counts (QuantStats), of one unit, of a thread block's tile, and of many.
#pragma once

#include "ops/quantized_tensor.h"
#include "precision/lanes.h"

namespace qstep::ops {

struct UnitCounts {
  double squared = 0, squared_error = 0;
  float amax = 0;
  int elements = 0, underflowed = 0, saturated = 0, non_finite = 0, blocks = 0, zero_scales = 0;

  // n elements before the transform.
  QSTEP_HD void source(const float* v, int n) {
    for (int i = 0; i < n; ++i) non_finite += is_finite(v[i]) ? 0 : 1;
  }
  // n elements as they were quantized, multiplied by enc, and as decoded, where one stands for
  // `factor`; beyond `limit` they were clipped.
  QSTEP_HD void quantized(const float* v, const float* decoded, int n, float enc, float factor,
                          float limit) {
    for (int i = 0; i < n; ++i) {
      const float size = precision::magnitude(v[i]);
      if (is_finite(size)) amax = precision::max(size, amax);
      saturated += limit < precision::magnitude(v[i] * enc) ? 1 : 0;
      underflowed += 0.0f < size && decoded[i] == 0.0f ? 1 : 0;
      const auto x = static_cast<double>(v[i]);
      const auto error = static_cast<double>(v[i] - decoded[i] * factor);
      squared += x * x;
      squared_error += error * error;
    }
  }
  QSTEP_HD void block_scale(float s) {
    ++blocks;
    zero_scales += s == 0.0f ? 1 : 0;
  }
  QSTEP_HD void add(const UnitCounts& other) {
    squared += other.squared;
    squared_error += other.squared_error;
    amax = precision::max(other.amax, amax);
    elements += other.elements;
    underflowed += other.underflowed;
    saturated += other.saturated;
    non_finite += other.non_finite;
    blocks += other.blocks;
    zero_scales += other.zero_scales;
  }

 private:
  QSTEP_HD static bool is_finite(float x) {
    return precision::bits(precision::magnitude(x)) < 0x7F800000u;
  }
};

// Sums of tensors count in FP64, which is exact below 2^53.
QSTEP_HD inline void add(QuantStats& s, const QuantStats& other) {
  s.elements += other.elements;
  s.amax = other.amax > s.amax ? other.amax : s.amax;
  s.underflowed += other.underflowed;
  s.saturated += other.saturated;
  s.non_finite += other.non_finite;
  s.blocks += other.blocks;
  s.zero_scales += other.zero_scales;
  s.squared += other.squared;
  s.squared_error += other.squared_error;
}

QSTEP_HD inline QuantStats stats_of(const UnitCounts& c) {
  QuantStats s;
  s.elements = c.elements;
  s.amax = static_cast<double>(c.amax);
  s.underflowed = c.underflowed;
  s.saturated = c.saturated;
  s.non_finite = c.non_finite;
  s.blocks = c.blocks;
  s.zero_scales = c.zero_scales;
  s.squared = c.squared;
  s.squared_error = c.squared_error;
  return s;
}

// Of the source times a factor.
QSTEP_HD inline void scale_stats(QuantStats& s, double factor) {
  s.amax *= factor;
  s.scale *= factor;
  s.squared *= factor * factor;
  s.squared_error *= factor * factor;
}

}  // namespace qstep::ops
