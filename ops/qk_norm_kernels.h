// RMSNorm of heads (ops/qk_norm.h) for the CUDA backend: a small team per head, with the rows of
// rmsnorm_kernels.h. Reads and writes qkv once; backward does not touch v.
#pragma once

#include "ops/qk_norm.h"
#include "ops/rmsnorm_kernels.h"

namespace qstep::ops::device {

struct Place {
  int64_t row, head;
};

// The heads of a row of qkv: n_q of queries, then as many of keys and of values, n_kv each.
struct HeadLayout {
  int32_t n_q, n_kv, head_dim;

  QSTEP_HD int32_t n_normed() const { return n_q + n_kv; }
  QSTEP_HD int32_t n_heads() const { return n_q + 2 * n_kv; }
  // Of team i, `heads` to a row; in 32 bits, where a GPU divides faster than it reads a head.
  QSTEP_HD Place place(int64_t i, int32_t heads) const {
    const auto team = static_cast<uint32_t>(i), n = static_cast<uint32_t>(heads);
    return {team / n, team % n};
  }
  template <class T>
  QSTEP_HD Row<T> head(const Rows<T>& rows, int64_t n, int64_t h) const {
    return {rows.row(n).data + h * head_dim, head_dim, rows.aligned};
  }
};

// Rows of qkv; heads start at multiples of 16 bytes where the rows do and D is whole groups.
template <class T>
Rows<T> head_rows(const Tensor& x, int64_t head_dim) {
  Rows<T> rows = rows_of<T>(x);
  rows.aligned = rows.aligned && head_dim % kGroup == 0;
  return rows;
}

inline HeadLayout head_layout(const AttentionShape& shape) {
  check(shape.n_tokens() * (shape.n_heads + 2 * shape.n_kv_heads) <= UINT32_MAX,
        "qk_norm: more heads than a launch numbers");
  return {static_cast<int32_t>(shape.n_heads), static_cast<int32_t>(shape.n_kv_heads),
          static_cast<int32_t>(shape.head_dim)};
}

// Team i: head i % heads of row i / heads.
template <class T>
struct QkNormForward {
  HeadLayout layout;
  Rows<T> y;
  Rows<const T> x;
  Row<const T> wq, wk;
  float* rstd;
  int64_t rstd_ld;
  float eps;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t i) const {
    const Place at = layout.place(i, layout.n_heads());
    const int64_t n = at.row, h = at.head;
    const Row<T> out = layout.head(y, n, h);
    const NormInput<T> in{layout.head(x, n, h), {}, {}};
    if (h >= layout.n_normed()) {
      if (out.data == in.x.data) return;
      team.each(layout.head_dim, [&](int64_t d) { out.data[d] = in.x.data[d]; });
      return;
    }
    const float scale = rmsnorm_row(team, out, in, h < layout.n_q ? wq : wk, eps, nullptr);
    if (team.leader()) rstd[n * rstd_ld + h] = scale;
  }
};

// Team i: head i % heads of chunk i / heads of the rows. The sums of a head's chunks lie together,
// those of the queries before those of the keys.
template <class T>
struct QkNormBackward {
  HeadLayout layout;
  Rows<T> grad;
  Rows<const T> x;
  Row<const T> wq, wk;
  const float* rstd;
  int64_t rstd_ld;
  ChunkSums dw;
  int64_t n_rows, rows_per_chunk, n_chunks;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t i) const {
    const Place at = layout.place(i, layout.n_normed());
    const int64_t chunk = at.row, h = at.head;
    const int64_t place = h * n_chunks + chunk;
    float* const sums = dw.start(team, shared, place);
    const int64_t first = chunk * rows_per_chunk;
    const int64_t last = first + rows_per_chunk < n_rows ? first + rows_per_chunk : n_rows;
    for (int64_t n = first; n < last; ++n) {
      const Row<T> head = layout.head(grad, n, h);
      rmsnorm_backward_row(team, head, sums, Row<const T>{head.data, head.n, head.aligned},
                           layout.head(x, n, h), h < layout.n_q ? wq : wk, rstd[n * rstd_ld + h],
                           false, nullptr);
    }
    dw.finish(team, sums, place);
  }
};

template <class Launch>
void qk_norm_forward(const Launch& launch, const Tensor& y, const Tensor& rstd, const Tensor& qkv,
                     const Tensor& wq, const Tensor& wk, const AttentionShape& shape, float eps) {
  check_qk_norm(y, rstd, qkv, wq, wk, shape);
  const HeadLayout layout = head_layout(shape);
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    launch.teams(qkv.rows * layout.n_heads(), norm_team(shape.head_dim), 0,
                 QkNormForward<T>{layout, head_rows<T>(y, shape.head_dim),
                                  head_rows<const T>(qkv, shape.head_dim), row_of<const T>(wq),
                                  row_of<const T>(wk), rstd.as<float>(), rstd.ld, eps});
  });
}

template <class Launch>
void qk_norm_backward(const Launch& launch, const Tensor& dqkv, const Tensor& dwq,
                      const Tensor& dwk, const Tensor& qkv, const Tensor& wq, const Tensor& wk,
                      const Tensor& rstd, const AttentionShape& shape, Accumulate dw_mode) {
  check_qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape);
  const HeadLayout layout = head_layout(shape);
  const int64_t n_chunks = n_row_chunks(qkv.rows), n_teams = n_chunks * layout.n_normed();
  const int team = norm_team(shape.head_dim);
  const ChunkSums sums = chunk_sums(launch, n_teams, ChunkSums::width_for(shape.head_dim), team);
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    launch.teams(n_teams, team, sums.shared_floats(),
                 QkNormBackward<T>{layout, head_rows<T>(dqkv, shape.head_dim),
                                   head_rows<const T>(qkv, shape.head_dim), row_of<const T>(wq),
                                   row_of<const T>(wk), rstd.as<float>(), rstd.ld, sums, qkv.rows,
                                   chunk_rows(qkv.rows), n_chunks});
  });
  const int64_t n_q = n_chunks * shape.n_heads;
  add_chunks(launch, dwq, sums.data, n_q, sums.width, dw_mode);
  add_chunks(launch, dwk, sums.data + n_q * sums.width, n_teams - n_q, sums.width, dw_mode);
}

}  // namespace qstep::ops::device
