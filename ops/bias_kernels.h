// Gradient of a bias (ops/bias.h) for the CUDA backend: reads dy once.
#pragma once

#include "ops/bias.h"
#include "ops/row_sums.h"

namespace qstep::ops::device {

// Thread i: group i % groups of chunk i / groups of the rows.
template <class T>
struct SumRows {
  Rows<const T> dy;
  float* sums;
  int64_t n_rows, rows_per_chunk;

  QSTEP_HD void operator()(int64_t i) const {
    const int64_t groups = n_groups(dy.cols);
    const int64_t chunk = i / groups, g = i % groups;
    const int64_t first = chunk * rows_per_chunk;
    const int64_t last = first + rows_per_chunk < n_rows ? first + rows_per_chunk : n_rows;
    Group sum{};
    for (int64_t n = first; n < last; ++n) {
      sum = map([](float a, float b) { return a + b; }, sum, load(dy.row(n), g));
    }
    store_whole(sums + i * kGroup, sum);
  }
};

template <class Launch>
void bias_backward(const Launch& launch, const Tensor& db, const Tensor& dy, Accumulate mode) {
  check_bias_backward(db, dy);
  const int64_t n_chunks = n_row_chunks(dy.rows), width = ChunkSums::width_for(dy.cols);
  float* const sums = launch.template scratch<float>(n_chunks * width);
  dispatch_float(dy.dtype, [&]<class T>(T) {
    launch.each(n_chunks * n_groups(dy.cols),
                SumRows<T>{rows_of<const T>(dy), sums, dy.rows, chunk_rows(dy.rows)});
  });
  add_chunks(launch, db, sums, n_chunks, width, mode);
}

}  // namespace qstep::ops::device
