#include "ops/rope.h"

#include <cmath>

#include "ops/parallel_for.h"
#include "ops/simd/simd.h"

namespace qstep::ops {

void check_rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
                int64_t first_position) {
  check(shape.head_dim > 0 && shape.head_dim % 2 == 0, "rope: head_dim must be even");
  check(shape.seq_len > 0, "rope: seq_len must be positive");
  check(first_position >= 0, "rope: first_position is negative");
  expect_shape(qkv, shape.n_tokens(), shape.qkv_width(), "rope: qkv");
  expect_dtype(table, Dtype::kF32, "rope: table");
  check_equal(shape.head_dim, table.cols, "rope: table columns");
  check(table.rows >= first_position + shape.seq_len, "rope: table has too few positions");
}

void fill_rope_table(std::span<float> table, int64_t n_positions, int64_t head_dim, double theta) {
  check(head_dim > 0 && head_dim % 2 == 0, "rope: head_dim must be even");
  check(theta > 0, "rope: theta must be positive");
  check_equal(n_positions * head_dim, static_cast<int64_t>(table.size()), "rope: table size");
  const int64_t half = head_dim / 2;
  for (int64_t position = 0; position < n_positions; ++position) {
    float* const row = table.data() + position * head_dim;
    for (int64_t j = 0; j < half; ++j) {
      const double angle =
          static_cast<double>(position) *
          std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
      row[j] = static_cast<float>(std::cos(angle));
      row[half + j] = static_cast<float>(std::sin(angle));
    }
  }
}

namespace cpu {

namespace {

template <class T>
void rotate_head(T* x, const float* table, int64_t half, Direction direction) {
  for_each_group(half, [&](int64_t j, int64_t n) {
    const F32x16 a = load_n(x + j, n);
    const F32x16 b = load_n(x + half + j, n);
    const F32x16 c = load_n(table + j, n);
    F32x16 s = load_n(table + half + j, n);
    if (direction == Direction::kBackward) s = broadcast(0.0f) - s;
    store_n(x + j, fma(a, c, broadcast(0.0f) - b * s), n);
    store_n(x + half + j, fma(a, s, b * c), n);
  });
}

}  // namespace

void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
          int64_t first_position, Direction direction) {
  check_rope(qkv, table, shape, first_position);
  const float* const angles = table.as<float>();
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    T* const data = qkv.as<T>();
    parallel_for(qkv.rows, [&](int64_t n) {
      T* const row = data + n * qkv.ld;
      const float* const position = angles + (first_position + n % shape.seq_len) * table.ld;
      for (int64_t h = 0; h < shape.n_heads + shape.n_kv_heads; ++h) {
        rotate_head(row + h * shape.head_dim, position, shape.head_dim / 2, direction);
      }
    });
  });
}

}  // namespace cpu
}  // namespace qstep::ops
