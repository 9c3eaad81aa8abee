// Shapes for tests of row by row operations: one element, not a multiple of anything, several
// chunks of rows, rows with gaps between them, none at all.
#pragma once

#include <fmt/format.h>

#include <string>

#include "ops/tensor.h"

namespace qstep::test {

struct RowShape {
  int64_t rows, cols, gap;
};

inline constexpr RowShape kRowShapes[] = {{1, 1, 0},   {3, 17, 5},   {37, 200, 3},
                                          {70, 64, 0}, {5, 1003, 9}, {0, 20, 0}};
inline constexpr ops::Dtype kFloatTypes[] = {ops::Dtype::kF32, ops::Dtype::kBf16};

inline std::string describe(ops::Dtype dtype, const RowShape& s) {
  return fmt::format("{} [{}, {}] gap {}", ops::name(dtype), s.rows, s.cols, s.gap);
}

// f(dtype, shape) for every combination.
template <class F>
void for_each_row_shape(F&& f) {
  for (const ops::Dtype dtype : kFloatTypes) {
    for (const RowShape& shape : kRowShapes) f(dtype, shape);
  }
}

}  // namespace qstep::test
