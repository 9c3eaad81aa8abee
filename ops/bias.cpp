#include "ops/bias.h"

#include "ops/row_chunks.h"
#include "ops/simd/simd.h"

namespace qstep::ops::cpu {

namespace {

// sum[o] += the rows' sum, four rows at a time: (0 + 1) + (2 + 3).
template <class T>
void add_rows(float* sum, const T* dy, int64_t ld, int64_t rows, int64_t n) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4, dy += 4 * ld) {
    for_each_group(n, [&](int64_t i, int64_t lanes) {
      const T* const p = dy + i;
      const F32x16 four = (load_n(p, lanes) + load_n(p + ld, lanes)) +
                          (load_n(p + 2 * ld, lanes) + load_n(p + 3 * ld, lanes));
      store_n(sum + i, load_n(sum + i, lanes) + four, lanes);
    });
  }
  for (; r < rows; ++r, dy += ld) {
    for_each_group(n, [&](int64_t i, int64_t lanes) {
      store_n(sum + i, load_n(sum + i, lanes) + load_n(dy + i, lanes), lanes);
    });
  }
}

}  // namespace

void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate,
                   Workspace& workspace) {
  check_bias_backward(db, dy);
  const int64_t stride = partial_stride(dy.cols);
  const int64_t n_chunks = n_row_chunks(dy.rows);
  float* const partial = workspace.take<float>(n_chunks * stride);
  dispatch_float(dy.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* const pdy = dy.as<T>();
    for_each_row_chunk(dy.rows, [&](int64_t chunk, int64_t first, int64_t last) {
      float* const sum = partial + chunk * stride;
      std::fill(sum, sum + dy.cols, 0.0f);
      add_rows(sum, pdy + first * dy.ld, dy.ld, last - first, dy.cols);
    });
  });
  add_partials(db.as<float>(), partial, n_chunks, dy.cols, stride, accumulate);
}

}  // namespace qstep::ops::cpu
