// Softmax cross-entropy (ops/cross_entropy.h, cross_entropy_part.h) for the CUDA backend, a team
// per row. Maximum and sum come from one read (Milakov and Gimelshein, "Online normalizer
// calculation for softmax", 2018); the gradient's pass reads the row again, last part first, while
// it is in the caches, and writes it. From memory: one read, and for a gradient one write.
//
// No thread can throw: the loss (or the part) of a row whose target lies outside the vocabulary is
// NaN, which ends the step.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cross_entropy.h"
#include "ops/cross_entropy_part.h"
#include "ops/fast_math.h"
#include "ops/group.h"

namespace qstep::ops::device {

// A block per row, large: few rows in flight stay in the second-level cache.
constexpr int row_team(int64_t n) { return team_size(n_groups(n), 4, kMaxTeam); }

// softmax(x)[v] = exp(x[v] - max) / sum
struct SoftmaxRow {
  float max;  // at least the smallest finite float: keeps infinity - infinity out of masked rows
  float sum;  // sum exp(x - max)
};

// Of an empty row.
QSTEP_HD inline SoftmaxRow empty_softmax() { return {std::numeric_limits<float>::lowest(), 0.0f}; }

QSTEP_HD_INLINE SoftmaxRow join(const SoftmaxRow& a, const SoftmaxRow& b) {
  const float m = larger(a.max, b.max);
  return {m, a.sum * fast_exp(a.max - m) + b.sum * fast_exp(b.max - m)};
}

template <class T, class Team>
QSTEP_HD SoftmaxRow softmax_row(const Team& team, const Row<const T>& x) {
  return team.reduce(
      n_groups(x.n), empty_softmax(),
      [&](SoftmaxRow& row, int64_t g) {
        Group v = load(x, g);
        const int64_t count = x.count(g);
        QSTEP_UNROLL(8)
        for (int i = 0; i < kGroup; ++i) {
          if (i >= count) v.v[i] = -std::numeric_limits<float>::infinity();
        }
        float m = row.max;
        QSTEP_UNROLL(8)
        for (int i = 0; i < kGroup; ++i) m = larger(v.v[i], m);
        const float sum = sum_of(map([&](float a) { return fast_exp(a - m); }, v));
        row.sum = row.sum * fast_exp(row.max - m) + sum;
        row.max = m;
      },
      [](const SoftmaxRow& a, const SoftmaxRow& b) { return join(a, b); });
}

QSTEP_HD inline float loss_of(const SoftmaxRow& row, float target_logit) {
  return logf(row.sum) + (row.max - target_logit);
}

// x becomes scale (softmax(x) - one_hot(target)) in its first n columns, zero behind them; no
// column is hot where target lies outside them.
template <class T, class Team>
QSTEP_HD void gradient_row(const Team& team, const Row<T>& x, int64_t n, int64_t target,
                           const SoftmaxRow& row, float scale) {
  const float factor = scale / row.sum;
  const int64_t groups = n_groups(x.n);
  team.each(groups, [&](int64_t i) {
    const int64_t g = groups - 1 - i;
    const Group v = load(x, g);
    Group r = map([&](float logit) { return fast_exp(logit - row.max) * factor; }, v);
    const int64_t first = g * kGroup;
    if (first + kGroup > n) {
      QSTEP_UNROLL(8)
      for (int k = 0; k < kGroup; ++k) r.v[k] = first + k < n ? r.v[k] : 0.0f;
    }
    if (target >= first && target < first + kGroup) {
      QSTEP_UNROLL(8)
      for (int k = 0; k < kGroup; ++k) {
        if (first + k == target) r.v[k] = scale * (fast_exp(v.v[k] - row.max) / row.sum - 1.0f);
      }
    }
    store(x, g, r);
  });
}

// A row's columns that count: x[0, n) stands for tokens first_token, ... below the vocabulary's
// end.
struct LossColumns {
  const int32_t* targets;
  int64_t first_token, vocab, n;

  // -1 where the row has no such column.
  QSTEP_HD int64_t target_column(int64_t row) const {
    const int64_t column = targets[row] - first_token;
    return column >= 0 && column < n ? column : -1;
  }
  // 0 where another rank has it, NaN where nobody has.
  template <class T>
  QSTEP_HD float target_logit(const T* x, int64_t row) const {
    const int64_t column = target_column(row);
    if (column >= 0) return precision::to_float(x[column]);
    const bool valid = targets[row] >= 0 && targets[row] < vocab;
    return valid ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
};

inline LossColumns loss_columns(const Tensor& logits, const Tensor& targets, int64_t first_token,
                                int64_t vocab) {
  return {targets.as<int32_t>(), first_token, vocab,
          std::clamp(vocab - first_token, int64_t{0}, logits.cols)};
}

template <class T>
struct CrossEntropyForward {
  float* loss;
  Rows<const T> logits;
  LossColumns columns;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    const T* const x = logits.row(n).data;
    const SoftmaxRow row = softmax_row(team, Row<const T>{x, columns.n, logits.aligned});
    if (team.leader()) loss[n] = loss_of(row, columns.target_logit(x, n));
  }
};

template <class T>
struct CrossEntropyBackward {
  float* loss;
  Rows<T> logits;
  LossColumns columns;
  float scale;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    const Row<T> x = logits.row(n);
    const float target_logit = columns.target_logit(x.data, n);  // before it is overwritten
    const SoftmaxRow row = softmax_row(team, Row<const T>{x.data, columns.n, x.aligned});
    if (team.leader()) loss[n] = loss_of(row, target_logit);
    gradient_row(team, x, columns.n, columns.target_column(n), row, scale);
  }
};

template <class T>
struct CrossEntropyPart {
  float *largest, *sum, *target_logit;
  Rows<const T> logits;
  LossColumns columns;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    const T* const x = logits.row(n).data;
    const SoftmaxRow row = softmax_row(team, Row<const T>{x, columns.n, logits.aligned});
    if (!team.leader()) return;
    // The sum has exp(0) where any logit is above -infinity.
    largest[n] = row.sum == 0.0f ? -std::numeric_limits<float>::infinity() : row.max;
    sum[n] = row.sum;
    target_logit[n] = columns.target_logit(x, n);
  }
};

struct CrossEntropyJoin {
  float *loss, *lse;
  Rows<const float> parts;
  int64_t n_parts;

  QSTEP_HD void operator()(int64_t n) const {
    const auto value = [&](int64_t r) { return parts.row(r).data[n]; };
    SoftmaxRow row = empty_softmax();
    for (int64_t r = 0; r < n_parts; r += 3) row.max = larger(value(r), row.max);
    float target_logit = 0.0f;
    for (int64_t r = 0; r < n_parts; r += 3) {
      row.sum += value(r + 1) * fast_exp(value(r) - row.max);  // 0 * 0 where a rank has nothing
      target_logit += value(r + 2);
    }
    loss[n] = loss_of(row, target_logit);
    lse[n] = logf(row.sum) + row.max;
  }
};

template <class T>
struct CrossEntropyPartBackward {
  Rows<T> logits;
  const float* lse;
  LossColumns columns;
  float scale;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    // exp(x - lse) needs no division: with lse in the maximum's place the sum is 1.
    gradient_row(team, logits.row(n), columns.n, columns.target_column(n), SoftmaxRow{lse[n], 1.0f},
                 scale);
  }
};

template <class Launch>
void cross_entropy_forward(const Launch& launch, const Tensor& loss, const Tensor& logits,
                           const Tensor& targets, int64_t vocab) {
  check_cross_entropy(loss, logits, targets, vocab);
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launch.teams(logits.rows, row_team(logits.cols), 0,
                 CrossEntropyForward<T>{loss.as<float>(), rows_of<const T>(logits),
                                        loss_columns(logits, targets, 0, vocab)});
  });
}

template <class Launch>
void cross_entropy_backward(const Launch& launch, const Tensor& loss, const Tensor& logits,
                            const Tensor& targets, int64_t vocab, float scale) {
  check_cross_entropy(loss, logits, targets, vocab);
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launch.teams(logits.rows, row_team(logits.cols), 0,
                 CrossEntropyBackward<T>{loss.as<float>(), rows_of<T>(logits),
                                         loss_columns(logits, targets, 0, vocab), scale});
  });
}

template <class Launch>
void cross_entropy_part(const Launch& launch, const Tensor& part, const Tensor& logits,
                        const Tensor& targets, int64_t first_token, int64_t vocab) {
  check_cross_entropy_part(part, logits, targets, first_token, vocab);
  float* const largest = part.as<float>();
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launch.teams(logits.rows, row_team(logits.cols), 0,
                 CrossEntropyPart<T>{largest, largest + part.ld, largest + 2 * part.ld,
                                     rows_of<const T>(logits),
                                     loss_columns(logits, targets, first_token, vocab)});
  });
}

template <class Launch>
void cross_entropy_join(const Launch& launch, const Tensor& loss, const Tensor& lse,
                        const Tensor& parts) {
  check_cross_entropy_join(loss, lse, parts);
  launch.each(parts.cols, CrossEntropyJoin{loss.as<float>(), lse.as<float>(),
                                           rows_of<const float>(parts), parts.rows});
}

template <class Launch>
void cross_entropy_part_backward(const Launch& launch, const Tensor& logits, const Tensor& lse,
                                 const Tensor& targets, int64_t first_token, int64_t vocab,
                                 float scale) {
  check_cross_entropy_part_backward(logits, lse, targets, first_token, vocab);
  dispatch_float(logits.dtype, [&]<class T>(T) {
    launch.teams(
        logits.rows, row_team(logits.cols), 0,
        CrossEntropyPartBackward<T>{rows_of<T>(logits), lse.as<float>(),
                                    loss_columns(logits, targets, first_token, vocab), scale});
  });
}

}  // namespace qstep::ops::device
