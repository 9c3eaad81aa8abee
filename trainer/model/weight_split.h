// Which part of every weight a rank of a tensor-parallel group holds (WeightSpec::split).
// Arithmetic only.
//
// A rank's part of a weight is a matrix of its own: of every section of the cut dimension the share
// of the rank, one behind the other, as [q of its heads | k of its heads | v of its heads]. In
// memory each share is one run of it: rows are stacked, and columns are cut in one section or in
// one row.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/model/weights.h"

namespace qstep::trainer {

// A rank of a tensor-parallel group.
struct TensorPlace {
  int size = 1, rank = 0;
};

struct LocalShape {
  int64_t rows = 0, cols = 0;
};
// Of the part that each rank holds; all of it where it is not cut. An internal Error where a
// section does not divide (refused before, tensor_check.h).
LocalShape local_shape(const WeightSpec& spec, int tensor);

// One section's share: the block [rows, cols] at (first_row, first_col) of the whole weight, which
// is elements [first, first + rows * cols) of the rank's part.
struct LocalBlock {
  int64_t first_row = 0, first_col = 0, rows = 0, cols = 0;
  int64_t first = 0;

  int64_t size() const { return rows * cols; }
};
// In the order of the rank's part. A weight that is not cut is one block, and so is every weight of
// a group of one.
std::vector<LocalBlock> local_blocks(const WeightSpec& spec, const TensorPlace& place);

}  // namespace qstep::trainer
