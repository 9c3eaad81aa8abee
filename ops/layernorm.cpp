#include "ops/layernorm.h"

#include <cmath>

#include "ops/add_row.h"
#include "ops/parallel_for.h"
#include "ops/row_amax.h"
#include "ops/row_chunks.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

struct RowStatistics {
  float mean;
  float rstd;
};

template <class T>
RowStatistics forward_row(T* y, const T* x, const T* w, const T* b, int64_t n, float eps) {
  const float sum =
      sum_groups(n, [&](F32x16 s, int64_t i, int64_t lanes) { return s + load_n(x + i, lanes); });
  const float mean = sum / static_cast<float>(n);
  const F32x16 center = broadcast(mean);
  const float sum_squares = sum_groups(n, [&](F32x16 s, int64_t i, int64_t lanes) {
    const F32x16 d = keep_first(load_n(x + i, lanes) - center, lanes);
    return fma(d, d, s);
  });
  const float rstd = 1.0f / std::sqrt(sum_squares / static_cast<float>(n) + eps);
  const F32x16 scale = broadcast(rstd);
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    const F32x16 h = (load_n(x + i, lanes) - center) * scale;
    store_n(y + i, fma(h, load_n(w + i, lanes), load_n(b + i, lanes)), lanes);
  });
  return {mean, rstd};
}

// Adds the row's part to dw and db.
template <class T, Accumulate kDxMode>
void backward_row(T* dx, float* dw, float* db, const T* dy, const T* x, const T* w, float mean,
                  float rstd, int64_t n) {
  const F32x16 center = broadcast(mean);
  const F32x16 scale = broadcast(rstd);
  const float sum_g = sum_groups(n, [&](F32x16 s, int64_t i, int64_t lanes) {
    return fma(load_n(dy + i, lanes), load_n(w + i, lanes), s);
  });
  const float sum_gh = sum_groups(n, [&](F32x16 s, int64_t i, int64_t lanes) {
    const F32x16 g = load_n(dy + i, lanes) * load_n(w + i, lanes);
    return fma(g, (load_n(x + i, lanes) - center) * scale, s);
  });
  const F32x16 mean_g = broadcast(sum_g / static_cast<float>(n));
  const F32x16 mean_gh = broadcast(sum_gh / static_cast<float>(n));
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    const F32x16 dyi = load_n(dy + i, lanes);
    const F32x16 h = (load_n(x + i, lanes) - center) * scale;
    store_n(dw + i, fma(dyi, h, load_n(dw + i, lanes)), lanes);
    store_n(db + i, dyi + load_n(db + i, lanes), lanes);
    F32x16 dxi = ((dyi * load_n(w + i, lanes) - mean_g) - h * mean_gh) * scale;
    if constexpr (kDxMode == Accumulate::kYes) dxi = load_n(dx + i, lanes) + dxi;
    store_n(dx + i, dxi, lanes);
  });
}

}  // namespace

void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                       const Tensor& w, const Tensor& b, float eps, const Tensor& amax) {
  check_layernorm_forward(y, mean, rstd, x, w, b);
  const OutputAmax largest(amax, "layernorm_forward: amax");
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const py = y.as<T>();
    const T* const px = x.as<T>();
    const T* const pw = w.as<T>();
    const T* const pb = b.as<T>();
    float* const pmean = mean.as<float>();
    float* const prstd = rstd.as<float>();
    parallel_for(x.rows, [&](int64_t n) {
      const RowStatistics s = forward_row(py + n * y.ld, px + n * x.ld, pw, pb, x.cols, eps);
      pmean[n] = s.mean;
      prstd[n] = s.rstd;
      largest.add(py + n * y.ld, x.cols);
    });
  });
}

void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                const Tensor& w, const Tensor& b, float eps, const Tensor& amax) {
  check_residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b);
  const OutputAmax largest(amax, "residual_layernorm_forward: amax");
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const psum = sum.as<T>();
    T* const py = y.as<T>();
    const T* const px = x.as<T>();
    const T* const pdelta = delta.as<T>();
    const T* const pw = w.as<T>();
    const T* const pb = b.as<T>();
    float* const pmean = mean.as<float>();
    float* const prstd = rstd.as<float>();
    parallel_for(x.rows, [&](int64_t n) {
      T* const row = psum + n * sum.ld;
      add_row(row, px + n * x.ld, pdelta + n * delta.ld, x.cols);
      const RowStatistics s = forward_row(py + n * y.ld, row, pw, pb, x.cols, eps);
      pmean[n] = s.mean;
      prstd[n] = s.rstd;
      largest.add(py + n * y.ld, x.cols);
    });
  });
}

void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                        const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                        Accumulate dx_mode, Accumulate dw_mode, Workspace& workspace,
                        const Tensor& amax) {
  check_layernorm_backward(dx, dw, db, dy, x, w, mean, rstd);
  const OutputAmax largest(amax, "layernorm_backward: amax");
  // A chunk's partial sums: dw, then db.
  const int64_t width = partial_stride(x.cols);
  const int64_t stride = 2 * width;
  const int64_t n_chunks = n_row_chunks(x.rows);
  float* const partial = workspace.take<float>(n_chunks * stride);
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto row = dx_mode == Accumulate::kYes ? backward_row<T, Accumulate::kYes>
                                                 : backward_row<T, Accumulate::kNo>;
    T* const pdx = dx.as<T>();
    const T* const pdy = dy.as<T>();
    const T* const px = x.as<T>();
    const T* const pw = w.as<T>();
    const float* const pmean = mean.as<float>();
    const float* const prstd = rstd.as<float>();
    for_each_row_chunk(x.rows, [&](int64_t chunk, int64_t first, int64_t last) {
      float* const dw_part = partial + chunk * stride;
      float* const db_part = dw_part + width;
      std::fill(dw_part, dw_part + stride, 0.0f);
      for (int64_t n = first; n < last; ++n) {
        row(pdx + n * dx.ld, dw_part, db_part, pdy + n * dy.ld, px + n * x.ld, pw, pmean[n],
            prstd[n], x.cols);
        largest.add(pdx + n * dx.ld, x.cols);
      }
    });
  });
  add_partials(dw.as<float>(), partial, n_chunks, x.cols, stride, dw_mode);
  add_partials(db.as<float>(), partial + width, n_chunks, x.cols, stride, dw_mode);
}

}  // namespace qstep::ops::cpu
