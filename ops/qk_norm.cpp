#include "ops/qk_norm.h"

#include <cmath>

#include "ops/parallel_for.h"
#include "ops/row_chunks.h"
#include "ops/simd/simd.h"

namespace qstep::ops {

void check_qk_norm(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                   const Tensor& wk, const AttentionShape& shape) {
  expect_shape(y, shape.n_tokens(), shape.qkv_width(), "qk_norm: y");
  expect_shape(qkv, shape.n_tokens(), shape.qkv_width(), "qk_norm: qkv");
  expect_shape(rstd, shape.n_tokens(), shape.n_heads + shape.n_kv_heads, "qk_norm: rstd");
  expect_vector(wq, shape.head_dim, "qk_norm: wq");
  expect_vector(wk, shape.head_dim, "qk_norm: wk");
  expect_dtype(y, qkv.dtype, "qk_norm: y");
  expect_dtype(wq, qkv.dtype, "qk_norm: wq");
  expect_dtype(wk, qkv.dtype, "qk_norm: wk");
  expect_dtype(rstd, Dtype::kF32, "qk_norm: rstd");
}

void check_qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk,
                            const Tensor& qkv, const Tensor& wq, const Tensor& wk,
                            const Tensor& rstd, const AttentionShape& shape) {
  check_qk_norm(dqkv, rstd, qkv, wq, wk, shape);
  for (const Tensor& dw : {dwq, dwk}) {
    expect_vector(dw, shape.head_dim, "qk_norm: dw");
    expect_dtype(dw, Dtype::kF32, "qk_norm: dw");
  }
}

namespace cpu {

namespace {

template <class T>
float normalise_head(T* y, const T* x, const T* w, int64_t head_dim, float eps) {
  const float sum = sum_groups(head_dim, [&](F32x16 partial, int64_t d, int64_t n) {
    const F32x16 v = load_n(x + d, n);
    return fma(v, v, partial);
  });
  const float rstd = 1.0f / std::sqrt(sum / static_cast<float>(head_dim) + eps);
  for_each_group(head_dim, [&](int64_t d, int64_t n) {
    store_n(y + d, load_n(x + d, n) * broadcast(rstd) * load_n(w + d, n), n);
  });
  return rstd;
}

// dy becomes dx; dw[d] += dy[d] x[d] rstd.
template <class T>
void normalise_head_backward(T* dy, float* dw, const T* x, const T* w, float rstd,
                             int64_t head_dim) {
  const float dot = sum_groups(head_dim, [&](F32x16 partial, int64_t d, int64_t n) {
    return fma(load_n(dy + d, n) * load_n(w + d, n), load_n(x + d, n), partial);
  });
  const F32x16 mean = broadcast(dot * rstd / static_cast<float>(head_dim));
  for_each_group(head_dim, [&](int64_t d, int64_t n) {
    const F32x16 x_hat = load_n(x + d, n) * broadcast(rstd);
    const F32x16 g = load_n(dy + d, n);
    store_n(dw + d, fma(g, x_hat, load_n(dw + d, n)), n);
    store_n(dy + d, (g * load_n(w + d, n) - x_hat * mean) * broadcast(rstd), n);
  });
}

}  // namespace

void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                     const Tensor& wk, const AttentionShape& shape, float eps) {
  check_qk_norm(y, rstd, qkv, wq, wk, shape);
  const int64_t head_dim = shape.head_dim;
  const int64_t n_normed = shape.n_heads + shape.n_kv_heads;
  float* const rstd_data = rstd.as<float>();
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    T* const out = y.as<T>();
    const T* const in = qkv.as<T>();
    const T* const weight_q = wq.as<T>();
    const T* const weight_k = wk.as<T>();
    parallel_for(qkv.rows, [&](int64_t row) {
      T* const y_row = out + row * y.ld;
      const T* const x_row = in + row * qkv.ld;
      for (int64_t h = 0; h < n_normed; ++h) {
        rstd_data[row * rstd.ld + h] =
            normalise_head(y_row + h * head_dim, x_row + h * head_dim,
                           h < shape.n_heads ? weight_q : weight_k, head_dim, eps);
      }
      if (y_row == x_row) return;
      std::copy_n(x_row + n_normed * head_dim, shape.kv_width(), y_row + n_normed * head_dim);
    });
  });
}

void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                      const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                      const AttentionShape& shape, Accumulate dw_mode, Workspace& workspace) {
  check_qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape);
  const int64_t head_dim = shape.head_dim;
  const int64_t n_chunks = n_row_chunks(qkv.rows);
  const int64_t width = partial_stride(head_dim);
  float* const partial = workspace.take<float>(n_chunks * 2 * width);  // [chunk][dwq | dwk]
  const float* const rstd_data = rstd.as<float>();
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    T* const grad = dqkv.as<T>();
    const T* const in = qkv.as<T>();
    const T* const weight_q = wq.as<T>();
    const T* const weight_k = wk.as<T>();
    for_each_row_chunk(qkv.rows, [&](int64_t chunk, int64_t first, int64_t last) {
      float* const part = partial + chunk * 2 * width;
      std::fill_n(part, 2 * width, 0.0f);
      for (int64_t row = first; row < last; ++row) {
        for (int64_t h = 0; h < shape.n_heads + shape.n_kv_heads; ++h) {
          const bool is_query = h < shape.n_heads;
          normalise_head_backward(grad + row * dqkv.ld + h * head_dim,
                                  is_query ? part : part + width, in + row * qkv.ld + h * head_dim,
                                  is_query ? weight_q : weight_k, rstd_data[row * rstd.ld + h],
                                  head_dim);
        }
      }
    });
  });
  add_partials(dwq.as<float>(), partial, n_chunks, head_dim, 2 * width, dw_mode);
  add_partials(dwk.as<float>(), partial + width, n_chunks, head_dim, 2 * width, dw_mode);
}

}  // namespace cpu
}  // namespace qstep::ops
