// RMSNorm (ops/rmsnorm.h) for the CUDA backend, a team per row. Forward reads x (and delta) and
// writes y (and the sum); backward reads dy and x and writes dx. What a row's second pass reads
// again comes from the first-level cache: a team is as large as keeps all rows in flight there.
#pragma once

#include <cmath>

#include "ops/output_amax.h"
#include "ops/rmsnorm.h"
#include "ops/row_sums.h"

namespace qstep::ops::device {

// A team for rows of n elements that are summed over.
constexpr int norm_team(int64_t n) { return team_size(n_groups(n), 2); }

template <class T>
QSTEP_HD_INLINE float round_to(float x) {
  T rounded;
  put(rounded, x);
  return precision::to_float(rounded);
}

// x, or x + delta where there is a residual: rounded as `add` rounds it, and kept in `sum`.
template <class T>
struct NormInput {
  Row<const T> x, delta;
  Row<T> sum;

  QSTEP_HD_INLINE Group load_group(int64_t g) const {
    if (delta.data == nullptr) return load(x, g);
    return map_rows([](float u, float v) { return round_to<T>(u + v); }, g, x, delta);
  }
  // After the last load of this group: sum may be x.
  QSTEP_HD_INLINE void keep(int64_t g, const Group& v) const {
    if (delta.data != nullptr) store(sum, g, v);
  }
};

// y = x rstd w, its amax; returns rstd.
template <class T, class Team>
QSTEP_HD float rmsnorm_row(const Team& team, const Row<T>& y, const NormInput<T>& x,
                           const Row<const T>& w, float eps, uint32_t* amax) {
  const int64_t groups = n_groups(y.n);
  const float squares = team.sum(groups, [&](int64_t g) {
    return sum_of(map([](float v) { return v * v; }, x.load_group(g)));
  });
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(y.n) + eps);
  each_with_amax<T>(team, groups, amax, [&](int64_t g) {
    const Group v = x.load_group(g);
    x.keep(g, v);
    const Group out = map([&](float a, float b) { return a * rstd * b; }, v, load(w, g));
    store(y, g, out);
    return largest_bits(y, g, out);
  });
  return rstd;
}

// dx (+)= the gradient, its amax; dw += dy x rstd. dx may be dy.
template <class T, class Team>
QSTEP_HD void rmsnorm_backward_row(const Team& team, const Row<T>& dx, float* dw,
                                   const Row<const T>& dy, const Row<const T>& x,
                                   const Row<const T>& w, float rstd, bool accumulate,
                                   uint32_t* amax) {
  const int64_t groups = n_groups(x.n);
  const float sum_gx = team.sum(groups, [&](int64_t g) {
    return sum_of(
        map_rows([](float d, float weight, float v) { return d * weight * v; }, g, dy, w, x));
  });
  const float mean_gh = sum_gx * rstd / static_cast<float>(x.n);
  each_with_amax<T>(team, groups, amax, [&](int64_t g) {
    Group in[3];
    load_together(in, g, dy, w, x);
    const Group &d = in[0], &weight = in[1];
    const Group h = map([&](float v) { return v * rstd; }, in[2]);
    add_product_to(dw, g, d, h);
    Group r =
        map([&](float a, float b, float c) { return (a * b - c * mean_gh) * rstd; }, d, weight, h);
    if (accumulate) r = map([](float a, float b) { return a + b; }, load(dx, g), r);
    store(dx, g, r);
    return largest_bits(dx, g, r);
  });
}

template <class T>
struct RmsNormForward {
  Rows<T> y, sum;
  Rows<const T> x, delta;  // delta: none, or the residual's
  Row<const T> w;
  float* rstd;
  float eps;
  uint32_t* amax;  // of y; null: not wanted

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    const NormInput<T> in{x.row(n), delta.row(n), sum.row(n)};
    const float scale = rmsnorm_row(team, y.row(n), in, w, eps, amax);
    if (team.leader()) rstd[n] = scale;
  }
};

// A team per chunk of rows.
template <class T>
struct RmsNormBackward {
  Rows<T> dx;
  Rows<const T> dy, x;
  Row<const T> w;
  const float* rstd;
  ChunkSums dw;
  int64_t n_rows, rows_per_chunk;
  bool accumulate;
  uint32_t* amax;  // of dx; null: not wanted

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t chunk) const {
    float* const dw_sums = dw.start(team, shared, chunk);
    const int64_t first = chunk * rows_per_chunk;
    const int64_t last = first + rows_per_chunk < n_rows ? first + rows_per_chunk : n_rows;
    for (int64_t n = first; n < last; ++n) {
      rmsnorm_backward_row(team, dx.row(n), dw_sums, dy.row(n), x.row(n), w, rstd[n], accumulate,
                           amax);
    }
    dw.finish(team, dw_sums, chunk);
  }
};

template <class Launch>
void rmsnorm_forward(const Launch& launch, const Tensor& y, const Tensor& rstd, const Tensor& x,
                     const Tensor& w, float eps, const Tensor& amax) {
  check_rmsnorm_forward(y, rstd, x, w);
  uint32_t* const largest = start_amax(launch, amax, "rmsnorm_forward: amax");
  dispatch_float(x.dtype, [&]<class T>(T) {
    launch.teams(x.rows, norm_team(x.cols), 0,
                 RmsNormForward<T>{rows_of<T>(y),
                                   {},
                                   rows_of<const T>(x),
                                   {},
                                   row_of<const T>(w),
                                   rstd.as<float>(),
                                   eps,
                                   largest});
  });
}

template <class Launch>
void residual_rmsnorm_forward(const Launch& launch, const Tensor& sum, const Tensor& y,
                              const Tensor& rstd, const Tensor& x, const Tensor& delta,
                              const Tensor& w, float eps, const Tensor& amax) {
  check_residual_rmsnorm_forward(sum, y, rstd, x, delta, w);
  uint32_t* const largest = start_amax(launch, amax, "residual_rmsnorm_forward: amax");
  dispatch_float(x.dtype, [&]<class T>(T) {
    launch.teams(x.rows, norm_team(x.cols), 0,
                 RmsNormForward<T>{rows_of<T>(y), rows_of<T>(sum), rows_of<const T>(x),
                                   rows_of<const T>(delta), row_of<const T>(w), rstd.as<float>(),
                                   eps, largest});
  });
}

template <class Launch>
void rmsnorm_backward(const Launch& launch, const Tensor& dx, const Tensor& dw, const Tensor& dy,
                      const Tensor& x, const Tensor& w, const Tensor& rstd, Accumulate dx_mode,
                      Accumulate dw_mode, const Tensor& amax) {
  check_rmsnorm_backward(dx, dw, dy, x, w, rstd);
  uint32_t* const largest = start_amax(launch, amax, "rmsnorm_backward: amax");
  const int64_t n_chunks = n_row_chunks(x.rows);
  const int team = norm_team(x.cols);
  const ChunkSums sums = chunk_sums(launch, n_chunks, ChunkSums::width_for(x.cols), team);
  dispatch_float(x.dtype, [&]<class T>(T) {
    launch.teams(n_chunks, team, sums.shared_floats(),
                 RmsNormBackward<T>{rows_of<T>(dx), rows_of<const T>(dy), rows_of<const T>(x),
                                    row_of<const T>(w), rstd.as<float>(), sums, x.rows,
                                    chunk_rows(x.rows), dx_mode == Accumulate::kYes, largest});
  });
  add_chunks(launch, dw, sums.data, n_chunks, sums.width, dw_mode);
}

}  // namespace qstep::ops::device
