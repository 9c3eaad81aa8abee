// Sums over whole tensors (ops/reduce.h) for the CUDA backend: a team per chunk in FP32, then one
// team over the chunks' sums in FP64, in the order of ops/team.h. Reads the tensor once.
#pragma once

#include <cmath>

#include "ops/group.h"
#include "ops/reduce.h"

namespace qstep::ops::device {

template <bool kSquares>
struct SumChunk {
  Row<const float> x;
  float* sums;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t chunk) const {
    const int64_t first = chunk * kReduceChunk, left = x.n - first;
    const Row<const float> part{x.data + first, left < kReduceChunk ? left : kReduceChunk,
                                x.aligned};
    const float sum = team.sum(n_groups(part.n), [&](int64_t g) {
      const Group v = load(part, g);
      return sum_of(map([](float a) { return kSquares ? a * a : a; }, v));
    });
    if (team.leader()) sums[chunk] = sum;
  }
};

// out = sum / divisor, or sqrt(sum).
struct FinishSum {
  const float* sums;
  int64_t n;
  float* out;
  double divisor;
  bool root;

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t) const {
    const double sum = team.sum(n, [&](int64_t i) { return static_cast<double>(sums[i]); });
    if (team.leader()) *out = static_cast<float>(root ? ::sqrt(sum) : sum / divisor);
  }
};

template <bool kSquares, class Launch>
void sum_chunks(const Launch& launch, float* sums, const Tensor& x) {
  launch.teams(reduce_chunks(x.size()), team_size(n_groups(kReduceChunk), 4), 0,
               SumChunk<kSquares>{row_of<const float>(x), sums});
}

template <class Launch>
void finish_sum(const Launch& launch, const FinishSum& kernel) {
  launch.teams(1, team_size(kernel.n, 8, kMaxTeam), 0, kernel);
}

template <class Launch>
void mean(const Launch& launch, const Tensor& out, const Tensor& x) {
  check_mean(out, x);
  const int64_t n = reduce_chunks(x.size());
  float* const sums = launch.template scratch<float>(n);
  sum_chunks<false>(launch, sums, x);
  finish_sum(launch, {sums, n, out.as<float>(), static_cast<double>(x.size()), false});
}

template <class Launch>
void square_sums(const Launch& launch, const Tensor& sums, const Tensor& g) {
  check_square_sums(sums, g);
  sum_chunks<true>(launch, sums.as<float>(), g);
}

template <class Launch>
void norm_of_sums(const Launch& launch, const Tensor& norm, const Tensor& sums) {
  check_norm_of_sums(norm, sums);
  finish_sum(launch, {sums.as<float>(), sums.size(), norm.as<float>(), 1.0, true});
}

}  // namespace qstep::ops::device
