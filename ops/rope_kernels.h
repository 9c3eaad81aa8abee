// Rotary positions (ops/rope.h) for the CUDA backend; the bits of the CPU's. Reads and writes q and
// k once; the angles of a position come from the caches for all heads but the first.
#pragma once

#include "ops/group.h"
#include "ops/rope.h"

namespace qstep::ops::device {

template <class T>
struct RotateRow {
  Rows<T> qkv;
  Rows<const float> table;
  int64_t seq_len, first_position;
  int32_t n_heads, half, groups;  // query and key heads; D / 2, and its groups
  bool backward;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    const float* const angles = table.row(first_position + n % seq_len).data;
    const Row<const float> cosine{angles, half, table.aligned};
    const Row<const float> sine{angles + half, half, table.aligned};
    T* const heads = qkv.row(n).data;
    team.each(n_heads * groups, [&](int64_t i) {
      const auto item = static_cast<uint32_t>(i);
      const uint32_t g = item % static_cast<uint32_t>(groups);
      T* const head = heads + int64_t{item / static_cast<uint32_t>(groups)} * 2 * half;
      const Row<T> first{head, half, qkv.aligned}, second{head + half, half, qkv.aligned};
      Group in[4];
      load_together(in, g, first, second, cosine, sine);
      const Group &a = in[0], &b = in[1], &c = in[2];
      const Group s = map([&](float x) { return backward ? 0.0f - x : x; }, in[3]);
      Group x, y;
      QSTEP_UNROLL(8)
      for (int k = 0; k < kGroup; ++k) {
        x.v[k] = precision::fma(a.v[k], c.v[k], 0.0f - b.v[k] * s.v[k]);
        y.v[k] = precision::fma(a.v[k], s.v[k], b.v[k] * c.v[k]);
      }
      store(first, g, x);
      store(second, g, y);
    });
  }
};

template <class Launch>
void rope(const Launch& launch, const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
          int64_t first_position, Direction direction) {
  check_rope(qkv, table, shape, first_position);
  const int64_t half = shape.head_dim / 2, groups = n_groups(half);
  const int64_t n_heads = shape.n_heads + shape.n_kv_heads;
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    RotateRow<T> kernel{rows_of<T>(qkv),
                        rows_of<const float>(table),
                        shape.seq_len,
                        first_position,
                        static_cast<int32_t>(n_heads),
                        static_cast<int32_t>(half),
                        static_cast<int32_t>(groups),
                        direction == Direction::kBackward};
    // Every half of a head starts where whole groups would.
    if (half % kGroup != 0) kernel.qkv.aligned = kernel.table.aligned = false;
    launch.teams(qkv.rows, team_size(n_heads * groups, 2, 256), 0, kernel);
  });
}

}  // namespace qstep::ops::device
