// Sums over tokens for a weight's gradient on the CUDA backend: each team takes a fixed chunk of
// rows, one after the other, into sums in shared memory where they fit and in its row of scratch
// memory where not; a second kernel adds the chunks' sums in a fixed order (ops/team.h). The same
// bits on every machine: chunks depend on the number of rows alone.
#pragma once

#include "ops/group.h"
#include "ops/ops.h"

namespace qstep::ops::device {

// Rows per chunk: few enough that there are 512 chunks to share where there are rows for them, and
// at most 32, where writing and reading the sums is a sixteenth of the bytes of a BF16 matrix.
constexpr int64_t chunk_rows(int64_t rows) {
  int64_t n = 4;
  while (n < 32 && 512 * n < rows) n *= 2;
  return n;
}
constexpr int64_t n_row_chunks(int64_t rows) {
  return (rows + chunk_rows(rows) - 1) / chunk_rows(rows);
}

// Where the chunks' sums lie: a row of `width` floats each, whole groups.
struct ChunkSums {
  float* data;
  int64_t width;
  bool in_shared;  // while they are being added up

  static constexpr int64_t width_for(int64_t columns) { return n_groups(columns) * kGroup; }
  int64_t shared_floats() const { return in_shared ? width : 0; }

  // Zeros to add to. A group belongs to the same thread here, in `finish`, and in every `each` over
  // the groups of a row.
  template <class Team>
  QSTEP_HD float* start(const Team& team, float* shared, int64_t chunk) const {
    float* const sums = in_shared ? shared : data + chunk * width;
    team.each(width / kGroup, [&](int64_t g) { store_whole(sums + g * kGroup, Group{}); });
    return sums;
  }
  template <class Team>
  QSTEP_HD void finish(const Team& team, const float* sums, int64_t chunk) const {
    if (!in_shared) return;
    float* const out = data + chunk * width;
    team.each(width / kGroup,
              [&](int64_t g) { store_whole(out + g * kGroup, load_whole(sums + g * kGroup)); });
  }
};

// Scratch memory for the sums of n chunks; the only request of a call.
template <class Launch>
ChunkSums chunk_sums(const Launch& launch, int64_t n, int64_t width, int team) {
  const int64_t teams_per_block = block_threads(team) / team;
  return {launch.template scratch<float>(n * width), width,
          teams_per_block * width <= kMaxSharedFloats};
}

// sums[g] += x
QSTEP_HD_INLINE void add_to(float* sums, int64_t g, const Group& x) {
  float* const p = sums + g * kGroup;
  store_whole(p, map([](float a, float b) { return a + b; }, load_whole(p), x));
}

// sums[g] += a b, rounded once
QSTEP_HD_INLINE void add_product_to(float* sums, int64_t g, const Group& a, const Group& b) {
  float* const p = sums + g * kGroup;
  store_whole(p, map([](float u, float v, float s) { return precision::fma(u, v, s); }, a, b,
                     load_whole(p)));
}

// out[c] (+)= sum over i of sums[i stride + c]; a team per group of columns.
struct AddChunks {
  Row<float> out;
  const float* sums;
  int64_t n, stride;
  bool accumulate;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t g) const {
    const Sums<kGroup> total = team.sum(n, [&](int64_t i) {
      const Group x = load_whole(sums + i * stride + g * kGroup);
      Sums<kGroup> r;
      QSTEP_UNROLL(8)
      for (int k = 0; k < kGroup; ++k) r.v[k] = x.v[k];
      return r;
    });
    if (!team.leader()) return;
    Group result = accumulate ? load(out, g) : Group{};
    QSTEP_UNROLL(8)
    for (int k = 0; k < kGroup; ++k) result.v[k] = result.v[k] + total.v[k];
    store(out, g, result);
  }
};

template <class Launch>
void add_chunks(const Launch& launch, const Tensor& out, const float* sums, int64_t n,
                int64_t stride, Accumulate mode) {
  launch.teams(n_groups(out.size()), team_size(n, 8, 256), 0,
               AddChunks{row_of<float>(out), sums, n, stride, mode == Accumulate::kYes});
}

}  // namespace qstep::ops::device
