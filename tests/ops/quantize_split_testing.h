// A tensor in parts: where ranks have theirs, and that their quantizers give the codes, scales and
// factors of the tensor as a whole, bit for bit.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <bit>
#include <numeric>
#include <string>
#include <vector>

#include "tests/ops/quantize_testing.h"
#include "tests/support/thread_comm.h"

namespace qstep::test {

using ops::LogicalPlace;
using ops::SplitDim;
using parallel::Comm;

// Counts what a rank asks for.
class CommJoin final : public ops::AmaxJoin {
 public:
  explicit CommJoin(Comm& comm) : comm_(comm) {}
  void max(const Tensor& bits) override {
    ++calls;
    values += bits.size();
    comm_.wait(comm_.all_reduce(bits, parallel::Reduce::kMax));
  }
  int64_t calls = 0, values = 0;

 private:
  Comm& comm_;
};

// One dimension cut for t ranks: each of its sections (q, k and v) in t equal parts, of which a
// rank has one each. Spelled out apart from LogicalPlace.
struct Cut {
  SplitDim split;
  int n_ranks;
  std::vector<int64_t> of_rank;  // of each section

  int64_t size() const {
    return n_ranks * std::accumulate(of_rank.begin(), of_rank.end(), int64_t{0});
  }
  // The rows or columns of the whole that a rank has, in order.
  std::vector<int64_t> indices(int rank) const {
    std::vector<int64_t> all;
    int64_t section = 0;
    for (const int64_t n : of_rank) {
      for (int64_t i = 0; i < n; ++i) all.push_back(section + rank * n + i);
      section += n_ranks * n;
    }
    return all;
  }
  LogicalPlace place(int rank) const {
    LogicalPlace place{.split = split, .size = size()};
    int64_t first = 0, section = 0;
    for (const int64_t n : of_rank) {
      place.stretches[static_cast<size_t>(place.n_stretches++)] = {first, section + rank * n};
      first += n;
      section += n_ranks * n;
    }
    return place;
  }
  std::string what() const {
    return fmt::format("{} in {} parts of {}", split == SplitDim::kRows ? "rows" : "columns",
                       n_ranks, fmt::join(of_rank, " + "));
  }
};

inline std::vector<int64_t> all_of(int64_t n) {
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// A rank's rows and columns of the whole.
struct Indices {
  std::vector<int64_t> rows, cols;
};
inline Indices indices(const Cut& cut, Shape whole, int rank) {
  return {cut.split == SplitDim::kRows ? cut.indices(rank) : all_of(whole.rows),
          cut.split == SplitDim::kCols ? cut.indices(rank) : all_of(whole.cols)};
}

inline QuantInput part_of(const QuantInput& whole, const Cut& cut, int rank) {
  const Indices own = indices(cut, whole.shape, rank);
  Values x;
  for (const int64_t r : own.rows) {
    for (const int64_t c : own.cols)
      x.push_back(whole.x[static_cast<size_t>(r * whole.shape.cols + c)]);
  }
  QuantInput part(std::move(x),
                  {static_cast<int64_t>(own.rows.size()), static_cast<int64_t>(own.cols.size())},
                  whole.dtype);
  part.call.random = whole.call.random;
  part.call.place = cut.place(rank);
  return part;
}

template <class T>
T bits_at(const Tensor& t, int64_t row, int64_t col) {
  return std::bit_cast<T>(static_cast<const T*>(t.data)[row * t.ld + col]);
}

// The part of one orientation against the slices of the whole.
inline void expect_slices(const QuantSide& whole, const QuantSide& part, const Indices& own,
                          const std::string& what) {
  const bool rowwise = whole.q.orientation == Orientation::kRowwise;
  const auto n_rows = static_cast<int64_t>(own.rows.size());
  const auto n_cols = static_cast<int64_t>(own.cols.size());
  int64_t n_wrong = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t c = 0; c < n_cols; ++c) {
      n_wrong += bits_at<uint16_t>(part.values, r, c) !=
                 bits_at<uint16_t>(whole.values, own.rows[static_cast<size_t>(r)],
                                   own.cols[static_cast<size_t>(c)]);
    }
  }
  EXPECT_EQ(0, n_wrong) << what << " values";
  if (whole.q.scale) {
    EXPECT_EQ(bits_at<uint32_t>(whole.scale, 0, 0), bits_at<uint32_t>(part.scale, 0, 0)) << what;
  }
  if (!whole.q.tile_scales) return;
  const precision::BlockShape tile = ops::scale_tile(whole.q.spec);
  const std::vector<int64_t>& rows = rowwise ? own.rows : own.cols;
  const std::vector<int64_t>& k = rowwise ? own.cols : own.rows;
  n_wrong = 0;
  for (size_t r = 0; r < rows.size(); r += static_cast<size_t>(tile.rows)) {
    for (size_t i = 0; i < k.size(); i += static_cast<size_t>(tile.k)) {
      const auto at = [&](const QuantSide& side, int64_t row, int64_t along) {
        return bits_at<uint32_t>(side.tile_scales, row / tile.rows,
                                 tile.k == 0 ? 0 : along / tile.k);
      };
      n_wrong +=
          at(part, static_cast<int64_t>(r), static_cast<int64_t>(i)) != at(whole, rows[r], k[i]);
      if (tile.k == 0) break;
    }
  }
  EXPECT_EQ(0, n_wrong) << what << " tile scales";
}

// The operands of one tensor; one that is not quantized is not asked for.
struct Pair {
  QuantSpec row, column;
  std::string what() const { return describe(row) + " and " + describe(column); }
};
struct Sides {
  Sides(const Pair& pair, const QuantInput& in)
      : row(in.side(pair.row, Orientation::kRowwise)),
        column(in.side(pair.column, Orientation::kColumnwise)) {}
  ops::QuantizedTensor row_q() const { return row.q.spec.quantized() ? row.q : no_operand(); }
  ops::QuantizedTensor column_q() const {
    return column.q.spec.quantized() ? column.q : no_operand();
  }
  static ops::QuantizedTensor no_operand() { return {}; }

  QuantSide row, column;
};

struct Joined {
  int64_t calls = 0, values = 0;
  friend bool operator==(const Joined&, const Joined&) = default;
};

// Returns what every rank joined.
inline std::vector<Joined> expect_parts(const Pair& pair, const QuantInput& in, const Cut& cut) {
  const std::string what = fmt::format("{} of {}, {}", pair.what(), in.what, cut.what());
  Sides whole(pair, in);
  Quantizer quantize;
  quantize(whole.row_q(), whole.column_q(), in);
  std::vector<Joined> joined(static_cast<size_t>(cut.n_ranks));
  run_ranks(cut.n_ranks, [&](Comm& comm) {
    omp_set_num_threads(1);  // of this rank
    QuantInput part = part_of(in, cut, comm.rank());
    CommJoin join(comm);
    part.call.join = &join;
    Sides own(pair, part);
    Quantizer own_quantize;
    own_quantize(own.row_q(), own.column_q(), part);
    const std::string where = fmt::format("{}, rank {}", what, comm.rank());
    const Indices at = indices(cut, in.shape, comm.rank());
    if (pair.row.quantized()) expect_slices(whole.row, own.row, at, where + " rowwise");
    if (pair.column.quantized()) expect_slices(whole.column, own.column, at, where + " columnwise");
    joined[static_cast<size_t>(comm.rank())] = {join.calls, join.values};
  });
  for (const Joined& j : joined) EXPECT_EQ(joined[0], j) << what << ": ranks joined other amaxes";
  return joined;
}

}  // namespace qstep::test
