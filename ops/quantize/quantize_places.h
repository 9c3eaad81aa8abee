// How the loops of a quantizer walk over a chunk of the source.
#pragma once

#include "ops/quantize/quantize_side.h"

namespace qstep::ops::cpu {

// Calls f(place) for the groups of sixteen units of a chunk.
template <int kUnit, class F>
void for_each_place(const Side& side, const Chunk& c, F&& f) {
  constexpr int64_t unit = kUnit;
  Place p{.orientation = side.orientation};
  if (side.orientation == Orientation::kRowwise) {
    for (int64_t r = 0; r < c.rows; r += 16) {
      for (int64_t k = 0; k < c.cols; k += unit) {
        p.row = c.row + r;
        p.col = c.col + k;
        p.lanes = static_cast<int>(std::min<int64_t>(16, c.rows - r));
        p.elements = static_cast<int>(std::min(unit, c.cols - k));
        f(p);
      }
    }
    return;
  }
  for (int64_t k = 0; k < c.rows; k += unit) {
    for (int64_t col = 0; col < c.cols; col += 16) {
      p.row = c.row + k;
      p.col = c.col + col;
      p.lanes = static_cast<int>(std::min<int64_t>(16, c.cols - col));
      p.elements = static_cast<int>(std::min(unit, c.rows - k));
      f(p);
    }
  }
}

// Largest |x| of one row part; NaN is left out.
template <class T>
float row_amax(const T* x, int64_t n, uint32_t& raw) {
  const uint32_t found = largest_magnitude_bits(x, n);
  raw = std::max(raw, found);
  if (found <= 0x7F800000u) return precision::from_bits(found);
  float amax = 0;
  for (int64_t i = 0; i < n; ++i) {
    amax = precision::max(precision::magnitude(precision::to_float(x[i])), amax);
  }
  return amax;
}

}  // namespace qstep::ops::cpu
