// LayerNorm (ops/layernorm.h) for the CUDA backend, as rmsnorm_kernels.h does RMSNorm. The variance
// is taken about the mean in a pass of its own, from the cache.
#pragma once

#include "ops/layernorm.h"
#include "ops/rmsnorm_kernels.h"

namespace qstep::ops::device {

template <class T>
struct LayerNormForward {
  Rows<T> y, sum;
  Rows<const T> x, delta;  // delta: none, or the residual's
  Row<const T> w, b;
  float *mean, *rstd;
  float eps;
  uint32_t* amax;  // of y; null: not wanted

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t n) const {
    const NormInput<T> in{x.row(n), delta.row(n), sum.row(n)};
    const Row<T> out = y.row(n);
    const int64_t groups = n_groups(out.n);
    const auto n_columns = static_cast<float>(out.n);
    const float total = team.sum(groups, [&](int64_t g) { return sum_of(in.load_group(g)); });
    const float center = total / n_columns;
    const float squares = team.sum(groups, [&](int64_t g) {
      const Group v = in.load_group(g);
      const int64_t count = out.count(g);
      Group squares_of_group;
      QSTEP_UNROLL(8)
      for (int i = 0; i < kGroup; ++i) {
        const float d = i < count ? v.v[i] - center : 0.0f;
        squares_of_group.v[i] = d * d;
      }
      return sum_of(squares_of_group);
    });
    const float scale = 1.0f / sqrtf(squares / n_columns + eps);
    each_with_amax<T>(team, groups, amax, [&](int64_t g) {
      const Group v = in.load_group(g);
      in.keep(g, v);
      const Group normed =
          map([&](float a, float weight,
                  float bias) { return precision::fma((a - center) * scale, weight, bias); },
              v, load(w, g), load(b, g));
      store(out, g, normed);
      return largest_bits(out, g, normed);
    });
    if (team.leader()) {
      mean[n] = center;
      rstd[n] = scale;
    }
  }
};

// A team per chunk of rows; its sums: dw, then db.
template <class T>
struct LayerNormBackward {
  Rows<T> dx;
  Rows<const T> dy, x;
  Row<const T> w;
  const float *mean, *rstd;
  ChunkSums sums;
  int64_t n_rows, rows_per_chunk;
  bool accumulate;
  uint32_t* amax;  // of dx; null: not wanted

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float* shared, int64_t chunk) const {
    float* const dw = sums.start(team, shared, chunk);
    team.sync();  // db's groups belong to other threads than there
    const int64_t first = chunk * rows_per_chunk;
    const int64_t last = first + rows_per_chunk < n_rows ? first + rows_per_chunk : n_rows;
    for (int64_t n = first; n < last; ++n) row(team, dw, dw + sums.width / 2, n);
    team.sync();
    sums.finish(team, dw, chunk);
  }

 private:
  template <class Team>
  QSTEP_HD void row(const Team& team, float* dw, float* db, int64_t n) const {
    const Row<const T> dy_row = dy.row(n), x_row = x.row(n);
    const Row<T> dx_row = dx.row(n);
    const float center = mean[n], scale = rstd[n];
    const int64_t groups = n_groups(x_row.n);
    const Sums<2> sum_g_gh = team.sum(groups, [&](int64_t g) {
      Group in[3];
      load_together(in, g, dy_row, w, x_row);
      // Zeros behind the end of the row, where d and w are.
      const Group gradient = map([](float d, float weight) { return d * weight; }, in[0], in[1]);
      const Group gh =
          map([&](float d, float v) { return d * ((v - center) * scale); }, gradient, in[2]);
      return Sums<2>{{sum_of(gradient), sum_of(gh)}};
    });
    const float mean_g = sum_g_gh.v[0] / static_cast<float>(x_row.n);
    const float mean_gh = sum_g_gh.v[1] / static_cast<float>(x_row.n);
    each_with_amax<T>(team, groups, amax, [&](int64_t g) {
      Group in[3];
      load_together(in, g, dy_row, w, x_row);
      const Group& d = in[0];
      const Group h = map([&](float v) { return (v - center) * scale; }, in[2]);
      add_product_to(dw, g, d, h);
      add_to(db, g, d);
      Group r =
          map([&](float a, float b, float c) { return ((a * b - mean_g) - c * mean_gh) * scale; },
              d, in[1], h);
      if (accumulate) r = map([](float a, float b) { return a + b; }, load(dx_row, g), r);
      store(dx_row, g, r);
      return largest_bits(dx_row, g, r);
    });
  }
};

template <class Launch>
void layernorm_forward(const Launch& launch, const Tensor& y, const Tensor& mean,
                       const Tensor& rstd, const Tensor& x, const Tensor& w, const Tensor& b,
                       float eps, const Tensor& amax) {
  check_layernorm_forward(y, mean, rstd, x, w, b);
  uint32_t* const largest = start_amax(launch, amax, "layernorm_forward: amax");
  dispatch_float(x.dtype, [&]<class T>(T) {
    launch.teams(x.rows, norm_team(x.cols), 0,
                 LayerNormForward<T>{rows_of<T>(y),
                                     {},
                                     rows_of<const T>(x),
                                     {},
                                     row_of<const T>(w),
                                     row_of<const T>(b),
                                     mean.as<float>(),
                                     rstd.as<float>(),
                                     eps,
                                     largest});
  });
}

template <class Launch>
void residual_layernorm_forward(const Launch& launch, const Tensor& sum, const Tensor& y,
                                const Tensor& mean, const Tensor& rstd, const Tensor& x,
                                const Tensor& delta, const Tensor& w, const Tensor& b, float eps,
                                const Tensor& amax) {
  check_residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b);
  uint32_t* const largest = start_amax(launch, amax, "residual_layernorm_forward: amax");
  dispatch_float(x.dtype, [&]<class T>(T) {
    launch.teams(
        x.rows, norm_team(x.cols), 0,
        LayerNormForward<T>{rows_of<T>(y), rows_of<T>(sum), rows_of<const T>(x),
                            rows_of<const T>(delta), row_of<const T>(w), row_of<const T>(b),
                            mean.as<float>(), rstd.as<float>(), eps, largest});
  });
}

template <class Launch>
void layernorm_backward(const Launch& launch, const Tensor& dx, const Tensor& dw, const Tensor& db,
                        const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean,
                        const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                        const Tensor& amax) {
  check_layernorm_backward(dx, dw, db, dy, x, w, mean, rstd);
  uint32_t* const largest = start_amax(launch, amax, "layernorm_backward: amax");
  const int64_t n_chunks = n_row_chunks(x.rows), width = ChunkSums::width_for(x.cols);
  const int team = norm_team(x.cols);
  const ChunkSums sums = chunk_sums(launch, n_chunks, 2 * width, team);
  dispatch_float(x.dtype, [&]<class T>(T) {
    launch.teams(
        n_chunks, team, sums.shared_floats(),
        LayerNormBackward<T>{rows_of<T>(dx), rows_of<const T>(dy), rows_of<const T>(x),
                             row_of<const T>(w), mean.as<float>(), rstd.as<float>(), sums, x.rows,
                             chunk_rows(x.rows), dx_mode == Accumulate::kYes, largest});
  });
  add_chunks(launch, dw, sums.data, n_chunks, sums.width, dw_mode);
  add_chunks(launch, db, sums.data + width, n_chunks, sums.width, dw_mode);
}

}  // namespace qstep::ops::device
