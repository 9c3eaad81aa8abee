#include "trainer/base/slice.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

namespace qstep::trainer {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 56;  // so that no product below overflows

bool inside(int64_t first, int64_t n, int64_t size) {
  return first >= 0 && n > 0 && first <= size && n <= size - first;
}

// Columns [begin, end) of one row of the whole tensor.
struct Interval {
  int64_t begin = 0, end = 0;
};

// What a slice holds of `row`, one of the rows of its block.
Interval held_in_row(const Slice& s, int64_t row) {
  const int64_t row_begin = (row - s.first_row) * s.block_cols;  // as an element of the block
  const int64_t begin = std::max(s.first, row_begin);
  const int64_t end = std::min(s.first + s.count, row_begin + s.block_cols);
  return {s.first_col + begin - row_begin, s.first_col + end - row_begin};
}

// Rows of which a slice holds something: [first, last].
int64_t first_held_row(const Slice& s) { return s.row_of(0); }
int64_t last_held_row(const Slice& s) { return s.row_of(s.count - 1); }

// Place of an element among those that a slice holds.
int64_t place_of(const Slice& s, int64_t row, int64_t col) {
  return (row - s.first_row) * s.block_cols + (col - s.first_col) - s.first;
}

// Rows [begin_row, end_row) of slice number `slice`, all of the same columns.
struct Rectangle {
  int64_t begin_row = 0, end_row = 0;
  Interval columns;
  size_t slice = 0;
};

// A run is up to three rectangles: a part of a row, whole rows, a part of a row.
void append_rectangles(const Slice& s, size_t index, std::vector<Rectangle>& list) {
  const int64_t last = last_held_row(s);
  for (int64_t row = first_held_row(s); row <= last;) {
    const Interval columns = held_in_row(s, row);
    const bool whole_row = columns.end - columns.begin == s.block_cols;
    int64_t end = row + 1;
    if (whole_row) {
      const Interval in_last = held_in_row(s, last);
      end = in_last.end - in_last.begin == s.block_cols ? last + 1 : last;
      end = std::max(end, row + 1);
    }
    list.push_back({row, end, columns, index});
    row = end;
  }
}

}  // namespace

bool Slice::valid() const {
  return possible_shape(rows, cols) && inside(first_row, block_rows, rows) &&
         inside(first_col, block_cols, cols) && inside(first, count, block_rows * block_cols);
}

bool possible_shape(int64_t rows, int64_t cols) {
  return rows > 0 && cols > 0 && rows <= kMaxElements / cols;
}

Slice whole(int64_t rows, int64_t cols) { return block(rows, cols, 0, 0, rows, cols); }

Slice whole(const ops::Tensor& tensor) { return whole(tensor.rows, tensor.cols); }

Slice block(int64_t rows, int64_t cols, int64_t first_row, int64_t first_col, int64_t block_rows,
            int64_t block_cols) {
  return {.rows = rows,
          .cols = cols,
          .first_row = first_row,
          .first_col = first_col,
          .block_rows = block_rows,
          .block_cols = block_cols,
          .first = 0,
          .count = block_rows * block_cols};
}

Slice run_of(const Slice& slice, int64_t first, int64_t count) {
  ops::check(first >= 0 && count >= 0 && first <= slice.count && count <= slice.count - first,
             "a run outside the slice");
  Slice run = slice;
  run.first += first;
  run.count = count;
  return run;
}

std::string describe(const Slice& s) {
  std::string text =
      fmt::format("rows {} to {}, columns {} to {}", s.first_row, s.first_row + s.block_rows - 1,
                  s.first_col, s.first_col + s.block_cols - 1);
  if (s.count != s.block_rows * s.block_cols) {
    text += fmt::format(", of them elements {} to {}", s.first, s.first + s.count - 1);
  }
  return text;
}

void for_each_common_run(const Slice& a, const Slice& b,
                         const std::function<void(int64_t in_a, int64_t in_b, int64_t n)>& f) {
  if (a.count == 0 || b.count == 0) return;
  int64_t in_a = 0, in_b = 0, n = 0;  // the run that is growing
  const int64_t last = std::min(last_held_row(a), last_held_row(b));
  for (int64_t row = std::max(first_held_row(a), first_held_row(b)); row <= last; ++row) {
    const Interval of_a = held_in_row(a, row), of_b = held_in_row(b, row);
    const int64_t begin = std::max(of_a.begin, of_b.begin), end = std::min(of_a.end, of_b.end);
    if (begin >= end) continue;
    const int64_t next_a = place_of(a, row, begin), next_b = place_of(b, row, begin);
    if (n == 0 || next_a != in_a + n || next_b != in_b + n) {
      if (n > 0) f(in_a, in_b, n);
      in_a = next_a, in_b = next_b, n = 0;
    }
    n += end - begin;
  }
  if (n > 0) f(in_a, in_b, n);
}

std::optional<CoverProblem> cover_problem(std::span<const Slice> slices, int64_t rows,
                                          int64_t cols) {
  std::vector<Rectangle> rectangles;
  for (size_t i = 0; i < slices.size(); ++i) append_rectangles(slices[i], i, rectangles);
  std::sort(rectangles.begin(), rectangles.end(),
            [](const Rectangle& a, const Rectangle& b) { return a.begin_row < b.begin_row; });
  // Between two of these rows nothing changes.
  std::set<int64_t> changes = {0};
  for (const Rectangle& r : rectangles) changes.insert({r.begin_row, r.end_row});
  changes.erase(rows);

  std::multimap<int64_t, Rectangle> held;  // in the row at hand, by first column
  auto next = rectangles.begin();
  for (const int64_t row : changes) {
    std::erase_if(held, [&](const auto& entry) { return entry.second.end_row == row; });
    for (; next != rectangles.end() && next->begin_row == row; ++next) {
      held.emplace(next->columns.begin, *next);
    }
    int64_t col = 0;
    size_t previous = 0;
    for (const auto& [begin, r] : held) {
      if (begin > col) return CoverProblem{row, col, std::nullopt};
      if (begin < col) return CoverProblem{row, begin, std::pair(previous, r.slice)};
      col = r.columns.end;
      previous = r.slice;
    }
    if (col < cols) return CoverProblem{row, col, std::nullopt};
  }
  return std::nullopt;
}

}  // namespace qstep::trainer
