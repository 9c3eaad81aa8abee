#include "ops/rmsnorm.h"

#include <cmath>

#include "ops/add_row.h"
#include "ops/parallel_for.h"
#include "ops/row_amax.h"
#include "ops/row_chunks.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

// Returns rstd of the row.
template <class T>
float forward_row(T* y, const T* x, const T* w, int64_t n, float eps) {
  const float sum_squares = sum_groups(n, [&](F32x16 sum, int64_t i, int64_t lanes) {
    const F32x16 xi = load_n(x + i, lanes);
    return fma(xi, xi, sum);
  });
  const float rstd = 1.0f / std::sqrt(sum_squares / static_cast<float>(n) + eps);
  const F32x16 scale = broadcast(rstd);
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    store_n(y + i, load_n(x + i, lanes) * scale * load_n(w + i, lanes), lanes);
  });
  return rstd;
}

// Adds the row's part to dw.
template <class T, Accumulate kDxMode>
void backward_row(T* dx, float* dw, const T* dy, const T* x, const T* w, float rstd, int64_t n) {
  const F32x16 scale = broadcast(rstd);
  const float sum_gx = sum_groups(n, [&](F32x16 sum, int64_t i, int64_t lanes) {
    const F32x16 g = load_n(dy + i, lanes) * load_n(w + i, lanes);
    return fma(g, load_n(x + i, lanes), sum);
  });
  const F32x16 mean_gh = broadcast(sum_gx * rstd / static_cast<float>(n));
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    const F32x16 dyi = load_n(dy + i, lanes);
    const F32x16 h = load_n(x + i, lanes) * scale;
    store_n(dw + i, fma(dyi, h, load_n(dw + i, lanes)), lanes);
    F32x16 dxi = (dyi * load_n(w + i, lanes) - h * mean_gh) * scale;
    if constexpr (kDxMode == Accumulate::kYes) dxi = load_n(dx + i, lanes) + dxi;
    store_n(dx + i, dxi, lanes);
  });
}

}  // namespace

void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                     float eps, const Tensor& amax) {
  check_rmsnorm_forward(y, rstd, x, w);
  const OutputAmax largest(amax, "rmsnorm_forward: amax");
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const py = y.as<T>();
    const T* const px = x.as<T>();
    const T* const pw = w.as<T>();
    float* const prstd = rstd.as<float>();
    parallel_for(x.rows, [&](int64_t n) {
      prstd[n] = forward_row(py + n * y.ld, px + n * x.ld, pw, x.cols, eps);
      largest.add(py + n * y.ld, x.cols);
    });
  });
}

void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                              const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                              const Tensor& amax) {
  check_residual_rmsnorm_forward(sum, y, rstd, x, delta, w);
  const OutputAmax largest(amax, "residual_rmsnorm_forward: amax");
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const psum = sum.as<T>();
    T* const py = y.as<T>();
    const T* const px = x.as<T>();
    const T* const pdelta = delta.as<T>();
    const T* const pw = w.as<T>();
    float* const prstd = rstd.as<float>();
    parallel_for(x.rows, [&](int64_t n) {
      T* const row = psum + n * sum.ld;
      add_row(row, px + n * x.ld, pdelta + n * delta.ld, x.cols);
      prstd[n] = forward_row(py + n * y.ld, row, pw, x.cols, eps);
      largest.add(py + n * y.ld, x.cols);
    });
  });
}

void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                      const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                      Workspace& workspace, const Tensor& amax) {
  check_rmsnorm_backward(dx, dw, dy, x, w, rstd);
  const OutputAmax largest(amax, "rmsnorm_backward: amax");
  const int64_t stride = partial_stride(x.cols);
  float* const partial = workspace.take<float>(n_row_chunks(x.rows) * stride);
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto row = dx_mode == Accumulate::kYes ? backward_row<T, Accumulate::kYes>
                                                 : backward_row<T, Accumulate::kNo>;
    T* const pdx = dx.as<T>();
    const T* const pdy = dy.as<T>();
    const T* const px = x.as<T>();
    const T* const pw = w.as<T>();
    const float* const prstd = rstd.as<float>();
    for_each_row_chunk(x.rows, [&](int64_t chunk, int64_t first, int64_t last) {
      float* const dw_part = partial + chunk * stride;
      std::fill(dw_part, dw_part + x.cols, 0.0f);
      for (int64_t n = first; n < last; ++n) {
        row(pdx + n * dx.ld, dw_part, pdy + n * dy.ld, px + n * x.ld, pw, prstd[n], x.cols);
        largest.add(pdx + n * dx.ld, x.cols);
      }
    });
  });
  add_partials(dw.as<float>(), partial, n_row_chunks(x.rows), x.cols, stride, dw_mode);
}

}  // namespace qstep::ops::cpu
