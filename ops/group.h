// What the CUDA kernels read and write at once: a group of eight neighbouring elements of a row, 16
// bytes of BF16 or 32 of FP32, as floats. Where a row does not start at a multiple of 16 bytes, or
// ends within the group, element by element: the same groups, so the same bits.
#pragma once

#include <cstdint>
#include <utility>

#include "ops/team.h"
#include "ops/tensor.h"
#include "precision/bf16.h"
#include "precision/lanes.h"

namespace qstep::ops::device {

inline constexpr int kGroup = 8;

constexpr int64_t n_groups(int64_t n) { return (n + kGroup - 1) / kGroup; }

struct Group {
  float v[kGroup];
};

// Rounds to the element type.
QSTEP_HD_INLINE void put(float& to, float x) { to = x; }
QSTEP_HD_INLINE void put(Bf16& to, float x) { to = precision::to_bf16(x); }

// The memory of 16 bytes, whatever its type.
struct alignas(16) [[gnu::may_alias]] Words {
  uint32_t w[4];
};

QSTEP_HD_INLINE Group load_whole(const float* p) {
  Group r;
  QSTEP_UNROLL(2)
  for (int half = 0; half < 2; ++half) {
    const Words words = reinterpret_cast<const Words*>(p)[half];
    QSTEP_UNROLL(4)
    for (int i = 0; i < 4; ++i) r.v[4 * half + i] = precision::from_bits(words.w[i]);
  }
  return r;
}
QSTEP_HD_INLINE Group load_whole(const Bf16* p) {
  const Words words = *reinterpret_cast<const Words*>(p);
  Group r;
  QSTEP_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    r.v[2 * i] = precision::from_bits(words.w[i] << 16);
    r.v[2 * i + 1] = precision::from_bits(words.w[i] & 0xFFFF0000u);
  }
  return r;
}
QSTEP_HD_INLINE void store_whole(float* p, const Group& x) {
  QSTEP_UNROLL(2)
  for (int half = 0; half < 2; ++half) {
    Words words;
    QSTEP_UNROLL(4)
    for (int i = 0; i < 4; ++i) words.w[i] = precision::bits(x.v[4 * half + i]);
    reinterpret_cast<Words*>(p)[half] = words;
  }
}
QSTEP_HD_INLINE void store_whole(Bf16* p, const Group& x) {
  Words words;
  QSTEP_UNROLL(4)
  for (int i = 0; i < 4; ++i) words.w[i] = precision::pack_bf16(x.v[2 * i], x.v[2 * i + 1]);
  *reinterpret_cast<Words*>(p) = words;
}

template <class T>
struct Row {
  T* data;
  int64_t n;
  bool aligned;  // to 16 bytes

  // Elements of group g that the row has.
  QSTEP_HD int64_t count(int64_t g) const {
    const int64_t left = n - g * kGroup;
    return left < kGroup ? left : kGroup;
  }
};

// Group g of a row; zeros behind its end.
template <class T>
QSTEP_HD_INLINE Group load(const Row<T>& row, int64_t g) {
  const T* const p = row.data + g * kGroup;
  const int64_t count = row.count(g);
  if (row.aligned && count == kGroup) return load_whole(p);
  Group r;
  QSTEP_UNROLL(8)
  for (int i = 0; i < kGroup; ++i) r.v[i] = i < count ? precision::to_float(p[i]) : 0.0f;
  return r;
}
template <class T>
QSTEP_HD_INLINE void store(const Row<T>& row, int64_t g, const Group& x) {
  T* const p = row.data + g * kGroup;
  const int64_t count = row.count(g);
  if (row.aligned && count == kGroup) return store_whole(p, x);
  QSTEP_UNROLL(8)
  for (int i = 0; i < kGroup; ++i) {
    if (i < count) put(p[i], x.v[i]);
  }
}

// v[i] is group g of the i-th row. All of them are in flight together: a GPU's thread waits for
// what one `load` brings before it comes to the branch of the next.
template <class... T>
QSTEP_HD_INLINE void load_together(Group (&v)[sizeof...(T)], int64_t g, const Row<T>&... rows) {
  int i = 0;
  if (((rows.aligned && rows.count(g) == kGroup) && ...)) {
    ((v[i++] = load_whole(rows.data + g * kGroup)), ...);
  } else {
    ((v[i++] = load(rows, g)), ...);
  }
}

// f(float...) on each of eight elements.
template <class F, class... G>
QSTEP_HD_INLINE Group map(const F& f, const G&... x) {
  Group r;
  QSTEP_UNROLL(8)
  for (int i = 0; i < kGroup; ++i) r.v[i] = f(x.v[i]...);
  return r;
}

// The same on the elements of group g of several rows.
template <class F, class... T>
QSTEP_HD_INLINE Group map_rows(const F& f, int64_t g, const Row<T>&... rows) {
  Group v[sizeof...(T)];
  load_together(v, g, rows...);
  return [&]<size_t... i>(std::index_sequence<i...>) { return map(f, v[i]...); }
  (std::index_sequence_for<T...>{});
}

// By halves: three roundings.
QSTEP_HD_INLINE float sum_of(const Group& x) {
  return ((x.v[0] + x.v[4]) + (x.v[2] + x.v[6])) + ((x.v[1] + x.v[5]) + (x.v[3] + x.v[7]));
}

// The rows of a tensor as a kernel sees them.
template <class T>
struct Rows {
  T* data;
  int64_t ld, cols;
  bool aligned;  // every row

  QSTEP_HD Row<T> row(int64_t n) const { return {data + n * ld, cols, aligned}; }
};

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <class T>
Rows<T> rows_of(const Tensor& x) {
  const bool aligned =
      is_aligned(x.data) && (x.rows <= 1 || x.ld * static_cast<int64_t>(sizeof(T)) % 16 == 0);
  return {x.as<std::remove_const_t<T>>(), x.ld, x.cols, aligned};
}
// A vector, or a matrix used as one.
template <class T>
Row<T> row_of(const Tensor& x) {
  return {x.as<std::remove_const_t<T>>(), x.size(), is_aligned(x.data)};
}

// ---- element by element ---------------------------------------------------------------

// The groups of a row that a team walks, up to kGroupsPerTeam.
inline constexpr int64_t kGroupsPerTeam = 1024;
struct GroupSpan {
  int64_t row, first, n;
};
QSTEP_HD inline GroupSpan group_span(int64_t groups, int64_t teams_per_row, int64_t index) {
  const int64_t first = index % teams_per_row * kGroupsPerTeam;
  const int64_t n = groups - first < kGroupsPerTeam ? groups - first : kGroupsPerTeam;
  return {.row = index / teams_per_row, .first = first, .n = n};
}

// f(row, group) for every group of [rows, cols].
template <class F>
struct OverGroups {
  F f;
  int64_t groups, teams_per_row;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t index) const {
    const GroupSpan span = group_span(groups, teams_per_row, index);
    team.each(span.n, [&](int64_t i) { f(span.row, span.first + i); });
  }
};

// Kernel{f, groups of a row, teams per row, more...} over the groups of [rows, cols].
template <class Kernel, class Launch, class F, class... More>
void over_groups_by(const Launch& launch, int64_t rows, int64_t cols, const F& f,
                    const More&... more) {
  if (rows == 0 || cols == 0) return;
  const int64_t groups = n_groups(cols);
  const int64_t teams_per_row = (groups + kGroupsPerTeam - 1) / kGroupsPerTeam;
  launch.teams(rows * teams_per_row, team_size(groups, 4, 256), 0,
               Kernel{f, groups, teams_per_row, more...});
}
template <class Launch, class F>
void over_groups(const Launch& launch, int64_t rows, int64_t cols, const F& f) {
  over_groups_by<OverGroups<F>>(launch, rows, cols, f);
}

}  // namespace qstep::ops::device
