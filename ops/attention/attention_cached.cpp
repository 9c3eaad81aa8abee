#include <algorithm>

#include "ops/attention/attention.h"
#include "ops/attention/attention_tile.h"
#include "ops/parallel_for.h"

namespace qstep::ops {

void check_attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                            const Tensor& qkv, const AttentionShape& shape,
                            int64_t first_position) {
  check_attention_shape(qkv, shape, "attention_cached");
  check_equal(int64_t{1}, shape.batch, "attention_cached: batch");
  check(first_position >= 0, "attention_cached: first_position is negative");
  expect_shape(o, shape.n_tokens(), shape.q_width(), "attention_cached: o");
  expect_shape(v_cache, k_cache.rows, shape.kv_width(), "attention_cached: v_cache");
  check_equal(shape.kv_width(), k_cache.cols, "attention_cached: k_cache columns");
  check(first_position + shape.seq_len <= k_cache.rows,
        "attention_cached: the cache has too few positions");
  expect_dtype(o, qkv.dtype, "attention_cached: o");
  expect_dtype(k_cache, qkv.dtype, "attention_cached: k_cache");
  expect_dtype(v_cache, qkv.dtype, "attention_cached: v_cache");
}

namespace cpu {

void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                      const Tensor& qkv, const AttentionShape& shape, int64_t first_position,
                      Workspace& workspace) {
  check_attention_cached(o, k_cache, v_cache, qkv, shape, first_position);
  const int64_t head_dim = shape.head_dim;
  const int64_t group = shape.n_heads / shape.n_kv_heads;
  const int64_t rows = std::min(shape.seq_len, tile::query_tile_rows(group));
  const int64_t n_tiles = tile::divide_up(shape.seq_len, rows);
  dispatch_float(qkv.dtype, [&]<class T>(T) {
    const int64_t per_thread = tile::query_tile_scratch<T>(group, rows, head_dim);
    float* const scratch = workspace.take<float>(max_threads() * per_thread);
    T* const o_data = o.as<T>();
    T* const k_data = k_cache.as<T>();
    T* const v_data = v_cache.as<T>();
    const T* const qkv_data = qkv.as<T>();
    parallel_for(shape.seq_len, [&](int64_t t) {
      const T* const k = qkv_data + t * qkv.ld + shape.q_width();
      std::copy_n(k, shape.kv_width(), k_data + (first_position + t) * k_cache.ld);
      std::copy_n(k + shape.kv_width(), shape.kv_width(),
                  v_data + (first_position + t) * v_cache.ld);
    });
    parallel_for_dynamic(n_tiles * shape.n_kv_heads, [&](int64_t i) {
      const int64_t first = (n_tiles - 1 - i / shape.n_kv_heads) * rows;
      const int64_t kv = i % shape.n_kv_heads;
      const int64_t q_column = kv * group * head_dim;
      tile::attend<T>({.q = qkv_data + first * qkv.ld + q_column,
                       .q_ld = qkv.ld,
                       .o = o_data + first * o.ld + q_column,
                       .o_ld = o.ld,
                       .lse = nullptr,
                       .lse_ld = 0,
                       .k = k_data + kv * head_dim,
                       .k_ld = k_cache.ld,
                       .v = v_data + kv * head_dim,
                       .v_ld = v_cache.ld,
                       .group = group,
                       .n_rows = std::min(rows, shape.seq_len - first),
                       .first_position = first_position + first,
                       .head_dim = head_dim},
                      scratch + this_thread() * per_thread);
    });
  });
}

}  // namespace cpu
}  // namespace qstep::ops
