// One row of softmax cross-entropy: what the operation on whole rows and the one on their parts
// share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ops/error.h"
#include "ops/simd/simd.h"
#include "precision/bf16.h"

namespace qstep::ops::cpu {

// softmax(x)[v] = exp(x[v] - max) / sum
struct SoftmaxRow {
  float max;  // at least the smallest finite float: keeps infinity - infinity out of masked rows
  float sum;  // sum exp(x - max)
};

template <class T>
inline float block_max(const T* x, int64_t n, float start) {
  F32x16 m0 = broadcast(start), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    m0 = max(m0, load(x + i));
    m1 = max(m1, load(x + i + kLanes));
  }
  float m = reduce_max(max(m0, m1));
  for (; i < n; ++i) m = std::max(m, precision::to_float(x[i]));
  return m;
}

// One read of the row: block by block the sum so far is rescaled to the larger maximum. (Milakov
// and Gimelshein, "Online normalizer calculation for softmax", 2018.) A NaN may slip through the
// maximum; it does not slip through the sum.
template <class T>
inline SoftmaxRow softmax_row(const T* x, int64_t n) {
  // Elements whose maximum is taken before their exponentials: they stay in the first-level cache.
  constexpr int64_t kBlock = 2048;
  SoftmaxRow row{std::numeric_limits<float>::lowest(), 0.0f};
  for (int64_t first = 0; first < n; first += kBlock) {
    const T* const block = x + first;
    const int64_t size = std::min(kBlock, n - first);
    const float new_max = block_max(block, size, row.max);
    const F32x16 shift = broadcast(new_max);
    const float sum = sum_groups(size, [&](F32x16 s, int64_t i, int64_t lanes) {
      return s + keep_first(exp(load_n(block + i, lanes) - shift), lanes);
    });
    row.sum = row.sum * std::exp(row.max - new_max) + sum;
    row.max = new_max;
  }
  return row;
}

inline float loss_of(SoftmaxRow row, float target_logit) {
  return std::log(row.sum) + (row.max - target_logit);
}

// x becomes scale (softmax(x) - one_hot(target)); no column is hot where target lies outside [0,
// n).
template <class T>
inline void gradient_row(T* x, int64_t n, int64_t target, SoftmaxRow row, float scale) {
  const bool has_target = target >= 0 && target < n;
  const float target_logit = has_target ? precision::to_float(x[target]) : 0.0f;
  const F32x16 shift = broadcast(row.max);
  const F32x16 factor = broadcast(scale / row.sum);
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    store_n(x + i, exp(load_n(x + i, lanes) - shift) * factor, lanes);
  });
  if (!has_target) return;
  const float probability = std::exp(target_logit - row.max) / row.sum;
  const F32x16 at_target = broadcast(scale * (probability - 1.0f));
  store_part(x + target, at_target, 1);
}

inline void check_targets(const int32_t* targets, int64_t n, int64_t vocab) {
  for (int64_t i = 0; i < n; ++i) {
    check(targets[i] >= 0 && targets[i] < vocab,
          "cross_entropy: a target lies outside the vocabulary");
  }
}

}  // namespace qstep::ops::cpu
