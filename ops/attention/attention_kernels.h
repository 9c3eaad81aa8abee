// Attention (ops/attention/attention.h) a row at a time, for a team of threads (ops/team.h): the
// CUDA backend's plain path, FP32 throughout, for the shapes and types for which cuDNN has nothing.
// Every key and value is read once for every query: far from a GPU's peak.
//
//   forward   row i of o: keys in chunks, a running maximum and sum
//   backward  row i of dq from all its keys; row j of dk and dv from all queries that saw it, so
//   that
//             each gradient has one writer and a fixed order of additions
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/attention/attention.h"
#include "ops/group.h"

namespace qstep::ops::device {

inline constexpr int kAttentionChunk = 256;
inline constexpr int kAttentionTeam = kAttentionChunk;
// Floats of shared memory that a row needs: two chunks, two rows of D.
constexpr int64_t attention_shared_floats(int64_t head_dim) {
  return (2 * (kAttentionChunk + head_dim) + 3) / 4 * 4;
}

// Rows `ld` elements apart.
template <class T>
struct HeadRows {
  T* data;
  int64_t ld;
  QSTEP_HD T* row(int64_t i) const { return data + i * ld; }
};

template <class T>
QSTEP_HD inline float dot(const T* a, const T* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum = precision::fma(precision::to_float(a[i]), precision::to_float(b[i]), sum);
  }
  return sum;
}

QSTEP_HD inline int64_t chunk_of(int64_t first, int64_t end) {
  return end - first < kAttentionChunk ? end - first : kAttentionChunk;
}

// o = sum_j p[j] v[j], lse = log sum_j exp(s[j]) over the first n_keys rows of k and v.
template <class T, class Team>
QSTEP_HD void attention_row(const Team& team, float* shared, T* o, float* lse, const T* q,
                            HeadRows<const T> k, HeadRows<const T> v, int64_t n_keys, int64_t D,
                            float scale) {
  float* const p = shared;
  float* const sum_o = shared + kAttentionChunk;
  float highest = -INFINITY, sum = 0;
  team.each(D, [&](int64_t d) { sum_o[d] = 0; });
  for (int64_t first = 0; first < n_keys; first += kAttentionChunk) {
    const int64_t n = chunk_of(first, n_keys);
    team.each(n, [&](int64_t j) { p[j] = dot(q, k.row(first + j), D) * scale; });
    team.sync();
    const float here = team.max(n, [&](int64_t j) { return p[j]; });
    const float above = precision::max(highest, here);
    const float shrink = std::exp(highest - above);
    team.each(n, [&](int64_t j) { p[j] = std::exp(p[j] - above); });
    team.sync();
    sum = sum * shrink + team.sum(n, [&](int64_t j) { return p[j]; });
    team.each(D, [&](int64_t d) {
      float x = sum_o[d] * shrink;
      for (int64_t j = 0; j < n; ++j) {
        x = precision::fma(p[j], precision::to_float(v.row(first + j)[d]), x);
      }
      sum_o[d] = x;
    });
    team.sync();
    highest = above;
  }
  team.each(D, [&](int64_t d) { put(o[d], sum_o[d] / sum); });
  if (team.leader()) *lse = highest + std::log(sum);
}

// What the backward pass reads of one query head of one sequence.
template <class T>
struct AttentionHead {
  HeadRows<const T> q, k, v, d_o, o;
  const float* lse;  // [T]
  float* delta;      // [T]
};

// dq = scale sum_j ds[j] k[j], j <= i; leaves delta[i] = sum_d do[i,d] o[i,d].
template <class T, class Team>
QSTEP_HD void attention_dq_row(const Team& team, float* shared, T* dq, const AttentionHead<T>& h,
                               int64_t i, int64_t D, float scale) {
  float* const ds = shared;
  float* const sum_dq = shared + kAttentionChunk;
  const T* const d_o = h.d_o.row(i);
  const T* const o = h.o.row(i);
  const float its_delta = team.sum(
      D, [&](int64_t d) { return precision::to_float(d_o[d]) * precision::to_float(o[d]); });
  if (team.leader()) h.delta[i] = its_delta;
  team.each(D, [&](int64_t d) { sum_dq[d] = 0; });
  for (int64_t first = 0; first <= i; first += kAttentionChunk) {
    const int64_t n = chunk_of(first, i + 1);
    team.each(n, [&](int64_t j) {
      const float s = dot(h.q.row(i), h.k.row(first + j), D) * scale;
      const float dp = dot(d_o, h.v.row(first + j), D);
      ds[j] = std::exp(s - h.lse[i]) * (dp - its_delta);
    });
    team.sync();
    team.each(D, [&](int64_t d) {
      float x = sum_dq[d];
      for (int64_t j = 0; j < n; ++j) {
        x = precision::fma(ds[j], precision::to_float(h.k.row(first + j)[d]), x);
      }
      sum_dq[d] = x;
    });
    team.sync();
  }
  team.each(D, [&](int64_t d) { put(dq[d], sum_dq[d] * scale); });
}

// dk = scale sum_i ds[i] q[i] and dv = sum_i p[i] do[i] over the queries i >= j of `group` heads,
// head(0), head(1), ...; needs every delta.
template <class T, class Team, class Head>
QSTEP_HD void attention_dkv_row(const Team& team, float* shared, T* dk, T* dv, const Head& head,
                                int64_t group, int64_t j, int64_t seq_len, int64_t D, float scale) {
  float* const p = shared;
  float* const ds = shared + kAttentionChunk;
  float* const sum_dk = ds + kAttentionChunk;
  float* const sum_dv = sum_dk + D;
  team.each(D, [&](int64_t d) { sum_dk[d] = sum_dv[d] = 0; });
  for (int64_t g = 0; g < group; ++g) {
    const AttentionHead<T> h = head(g);
    for (int64_t first = j; first < seq_len; first += kAttentionChunk) {
      const int64_t n = chunk_of(first, seq_len);
      team.each(n, [&](int64_t i) {
        const int64_t row = first + i;
        const float s = dot(h.q.row(row), h.k.row(j), D) * scale;
        const float dp = dot(h.d_o.row(row), h.v.row(j), D);
        p[i] = std::exp(s - h.lse[row]);
        ds[i] = p[i] * (dp - h.delta[row]);
      });
      team.sync();
      team.each(D, [&](int64_t d) {
        float x = sum_dk[d], y = sum_dv[d];
        for (int64_t i = 0; i < n; ++i) {
          x = precision::fma(ds[i], precision::to_float(h.q.row(first + i)[d]), x);
          y = precision::fma(p[i], precision::to_float(h.d_o.row(first + i)[d]), y);
        }
        sum_dk[d] = x;
        sum_dv[d] = y;
      });
      team.sync();
    }
  }
  team.each(D, [&](int64_t d) {
    put(dk[d], sum_dk[d] * scale);
    put(dv[d], sum_dv[d]);
  });
}

// ---- the operations, a team per block ---------------------------------------------------------

// Rows of `qkv` and where a (sequence, query head) finds its own.
template <class T>
struct QkvHeads {
  const T* qkv;
  int64_t ld;
  AttentionShape shape;

  QSTEP_HD HeadRows<const T> columns(int64_t b, int64_t first) const {
    return {qkv + b * shape.seq_len * ld + first, ld};
  }
  QSTEP_HD HeadRows<const T> q(int64_t b, int64_t h) const {
    return columns(b, h * shape.head_dim);
  }
  QSTEP_HD HeadRows<const T> k(int64_t b, int64_t kv) const {
    return columns(b, shape.q_width() + kv * shape.head_dim);
  }
  QSTEP_HD HeadRows<const T> v(int64_t b, int64_t kv) const {
    return columns(b, shape.q_width() + shape.kv_width() + kv * shape.head_dim);
  }
  QSTEP_HD int64_t group() const { return shape.n_heads / shape.n_kv_heads; }
};

// Block (b H + h) T + i.
template <class T>
struct AttentionForwardRows {
  QkvHeads<T> heads;
  T* o;
  int64_t o_ld;
  float* lse;
  int64_t lse_ld;
  float scale;  // 1 / sqrt(D)

  int64_t n_blocks() const { return heads.shape.n_tokens() * heads.shape.n_heads; }
  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t block) const {
    const AttentionShape& s = heads.shape;
    const int64_t i = block % s.seq_len, bh = block / s.seq_len;
    const int64_t b = bh / s.n_heads, h = bh % s.n_heads, kv = h / heads.group();
    attention_row(team, shared, o + (b * s.seq_len + i) * o_ld + h * s.head_dim,
                  lse + bh * lse_ld + i, heads.q(b, h).row(i), heads.k(b, kv), heads.v(b, kv),
                  i + 1, s.head_dim, scale);
  }
};

// Block h T + i: the rows of `heads` are positions first_position .. of one sequence, whose keys
// and values are in the caches.
template <class T>
struct AttentionCachedRows {
  QkvHeads<T> heads;
  HeadRows<const T> k_cache, v_cache;
  T* o;
  int64_t o_ld, first_position;
  float scale;

  int64_t n_blocks() const { return heads.shape.seq_len * heads.shape.n_heads; }
  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t block) const {
    const AttentionShape& s = heads.shape;
    const int64_t i = block % s.seq_len, h = block / s.seq_len;
    const int64_t column = h / heads.group() * s.head_dim;
    float lse = 0;
    attention_row(team, shared, o + i * o_ld + h * s.head_dim, &lse, heads.q(0, h).row(i),
                  HeadRows<const T>{k_cache.data + column, k_cache.ld},
                  HeadRows<const T>{v_cache.data + column, v_cache.ld}, first_position + i + 1,
                  s.head_dim, scale);
  }
};

template <class T>
struct AttentionBackwardRows {
  QkvHeads<T> heads;
  const T *d_o, *o;
  int64_t d_o_ld, o_ld;
  const float* lse;
  int64_t lse_ld;
  float* delta;  // [B H, T]
  T* dqkv;
  int64_t dqkv_ld;
  float scale;

  QSTEP_HD AttentionHead<T> head(int64_t b, int64_t h) const {
    const AttentionShape& s = heads.shape;
    const int64_t bh = b * s.n_heads + h, kv = h / heads.group(), column = h * s.head_dim;
    return {heads.q(b, h),
            heads.k(b, kv),
            heads.v(b, kv),
            {d_o + b * s.seq_len * d_o_ld + column, d_o_ld},
            {o + b * s.seq_len * o_ld + column, o_ld},
            lse + bh * lse_ld,
            delta + bh * s.seq_len};
  }
};

// Block (b H + h) T + i.
template <class T>
struct AttentionDq : AttentionBackwardRows<T> {
  int64_t n_blocks() const { return this->heads.shape.n_tokens() * this->heads.shape.n_heads; }
  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t block) const {
    const AttentionShape& s = this->heads.shape;
    const int64_t i = block % s.seq_len, bh = block / s.seq_len;
    const int64_t b = bh / s.n_heads, h = bh % s.n_heads;
    attention_dq_row(team, shared,
                     this->dqkv + (b * s.seq_len + i) * this->dqkv_ld + h * s.head_dim,
                     this->head(b, h), i, s.head_dim, this->scale);
  }
};

// Block (b K + kv) T + j; behind AttentionDq, which leaves delta.
template <class T>
struct AttentionDkv : AttentionBackwardRows<T> {
  int64_t n_blocks() const { return this->heads.shape.n_tokens() * this->heads.shape.n_kv_heads; }
  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t block) const {
    const AttentionShape& s = this->heads.shape;
    const int64_t j = block % s.seq_len, b_kv = block / s.seq_len;
    const int64_t b = b_kv / s.n_kv_heads, kv = b_kv % s.n_kv_heads;
    const int64_t group = this->heads.group();
    T* const dk = this->dqkv + (b * s.seq_len + j) * this->dqkv_ld + s.q_width() + kv * s.head_dim;
    attention_dkv_row(
        team, shared, dk, dk + s.kv_width(),
        [&](int64_t g) { return this->head(b, kv * group + g); }, group, j, s.seq_len, s.head_dim,
        this->scale);
  }
};

// ---- launches: on a GPU, or on the host for tests
// ------------------------------------------------

template <class Launch, class Rows>
void run_rows(const Launch& launch, int64_t head_dim, const Rows& rows) {
  launch.teams(rows.n_blocks(), kAttentionTeam, attention_shared_floats(head_dim), rows);
}

template <class T>
QkvHeads<T> heads_of(const Tensor& qkv, const AttentionShape& shape) {
  return {qkv.as<T>(), qkv.ld, shape};
}
inline float score_scale(const AttentionShape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

template <class Launch>
void attention_forward(const Launch& launch, const Tensor& o, const Tensor& lse, const Tensor& qkv,
                       const AttentionShape& shape) {
  check_attention(o, lse, qkv, shape);
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    run_rows(launch, shape.head_dim,
             AttentionForwardRows<T>{.heads = heads_of<T>(qkv, shape),
                                     .o = o.as<T>(),
                                     .o_ld = o.ld,
                                     .lse = lse.as<float>(),
                                     .lse_ld = lse.ld,
                                     .scale = score_scale(shape)});
  });
}

template <class Launch>
void attention_backward(const Launch& launch, const Tensor& dqkv, const Tensor& d_o,
                        const Tensor& qkv, const Tensor& o, const Tensor& lse,
                        const AttentionShape& shape) {
  check_attention_backward(dqkv, d_o, qkv, o, lse, shape);
  auto* const delta = launch.template scratch<float>(shape.n_tokens() * shape.n_heads);
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    const AttentionBackwardRows<T> rows{.heads = heads_of<T>(qkv, shape),
                                        .d_o = d_o.as<T>(),
                                        .o = o.as<T>(),
                                        .d_o_ld = d_o.ld,
                                        .o_ld = o.ld,
                                        .lse = lse.as<float>(),
                                        .lse_ld = lse.ld,
                                        .delta = delta,
                                        .dqkv = dqkv.as<T>(),
                                        .dqkv_ld = dqkv.ld,
                                        .scale = score_scale(shape)};
    run_rows(launch, shape.head_dim, AttentionDq<T>{rows});
    run_rows(launch, shape.head_dim, AttentionDkv<T>{rows});
  });
}

// Behind the rows of k and v having entered the caches.
template <class Launch>
void attention_of_caches(const Launch& launch, const Tensor& o, const Tensor& k_cache,
                         const Tensor& v_cache, const Tensor& qkv, const AttentionShape& shape,
                         int64_t first_position) {
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    run_rows(launch, shape.head_dim,
             AttentionCachedRows<T>{.heads = heads_of<T>(qkv, shape),
                                    .k_cache = {k_cache.as<T>(), k_cache.ld},
                                    .v_cache = {v_cache.as<T>(), v_cache.ld},
                                    .o = o.as<T>(),
                                    .o_ld = o.ld,
                                    .first_position = first_position,
                                    .scale = score_scale(shape)});
  });
}

}  // namespace qstep::ops::device
