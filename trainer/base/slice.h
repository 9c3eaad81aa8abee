// Which elements of a tensor somebody holds: a block of the matrix (tensor parallel) and of that
// block, read row by row, one run (a shard of the optimizer's state). Arithmetic only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "ops/tensor.h"

namespace qstep::trainer {

// Elements [first, first + count) of the block [block_rows, block_cols] that begins at
// (first_row, first_col) of the matrix [rows, cols]. A run may begin and end inside a row.
struct Slice {
  int64_t rows = 0, cols = 0;  // of the whole tensor
  int64_t first_row = 0, first_col = 0;
  int64_t block_rows = 0, block_cols = 0;
  int64_t first = 0, count = 0;

  // Not empty, and inside a tensor of a possible shape.
  bool valid() const;
  // The row and the column of its element i in the whole tensor.
  int64_t row_of(int64_t i) const { return first_row + (first + i) / block_cols; }
  int64_t col_of(int64_t i) const { return first_col + (first + i) % block_cols; }

  bool operator==(const Slice&) const = default;
};

// A shape that a tensor can have: positive, and no product overflows.
bool possible_shape(int64_t rows, int64_t cols);

// All of a matrix; all of a block of it.
Slice whole(int64_t rows, int64_t cols);
Slice whole(const ops::Tensor& tensor);
Slice block(int64_t rows, int64_t cols, int64_t first_row, int64_t first_col, int64_t block_rows,
            int64_t block_cols);
// Elements [first, first + count) of what `slice` holds.
Slice run_of(const Slice& slice, int64_t first, int64_t count);

// "rows 2 to 5, columns 0 to 12, elements 7 to 20 of them": for messages
std::string describe(const Slice& slice);

// Calls f(in_a, in_b, n) for every run of elements that `a` and `b`, slices of one tensor, both
// hold in consecutive places: elements [in_a, in_a + n) of a's are [in_b, in_b + n) of b's. The
// runs are as long as possible and come in the order of a.
void for_each_common_run(const Slice& a, const Slice& b,
                         const std::function<void(int64_t in_a, int64_t in_b, int64_t n)>& f);

// Where slices of one tensor fail to hold every element exactly once.
struct CoverProblem {
  int64_t row = 0, col = 0;  // the first such element, row-major
  // Two slices that both hold it, as indices; without them nobody does.
  std::optional<std::pair<size_t, size_t>> twice;
};

// The first problem; nothing when the slices make up the tensor. O(n log n) for rows and runs.
std::optional<CoverProblem> cover_problem(std::span<const Slice> slices, int64_t rows,
                                          int64_t cols);

}  // namespace qstep::trainer
