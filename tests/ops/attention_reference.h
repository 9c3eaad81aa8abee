// Attention by its formulas in FP64, with bounds that follow the kernel's roundings:
//   u32 = 2^-24; up = 2^-8 where p and ds are rounded to BF16, otherwise 0 (a BF16 tensor may be
//   multiplied either way, depending on the processor, and is given the larger bound).
//   s      is a sum of D products: |error| <= (D + 8) u32 sum_d |q k| / sqrt(D) =: a; the 8 covers
//   the
//          scale and the argument of the exponential, whose size is at most 2 |s| log2(e)
//   p      relative error at most e = 2 max_j a + (T + 16) u32, and up when it meets v or do
//   dp     (D + 8) u32 sum_d |do v|; delta the same with o, and |do| times the error of o
//   ds     |ds| (e + up) + p (error of dp + error of delta)
//   what falls under 2^-126 may become zero, in p, ds and each product: `tiny` below
//   every sum of T or D terms adds (number of terms + 16) u32 sum |terms|, every output its
//   rounding.
#pragma once

#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

#include "ops/ops.h"
#include "tests/support/compare.h"

namespace qstep::test::attention {

using ops::AttentionShape;
using Values = std::vector<double>;

inline size_t at(int64_t row, int64_t col, int64_t width) {
  return static_cast<size_t>(row * width + col);
}

inline double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
inline double dot_of_magnitudes(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::abs(a[i] * b[i]);
  return sum;
}

struct Reference {
  Values o, lse, dqkv;
  Values o_bound, lse_bound, dqkv_bound;
};

// Forward, and backward of sum(o d_o), one row after the other. dp may be rounded once more, by
// dp_roundoff.
inline Reference reference(const AttentionShape& shape, const Values& qkv, const Values& d_o,
                           Dtype dtype, double dp_roundoff = 0) {
  const double u32 = kF32Roundoff;
  const double up = dtype == Dtype::kBf16 ? kBf16Roundoff : 0.0;
  const double u_out = roundoff(dtype);
  const double tiny = 0x1p-125;
  const int64_t T = shape.seq_len, D = shape.head_dim, group = shape.n_heads / shape.n_kv_heads;
  const int64_t width = shape.qkv_width(), o_width = shape.q_width();
  const double scale = 1.0 / std::sqrt(static_cast<double>(D));
  const double sum_error_d = static_cast<double>(D + 8) * u32;
  const double sum_error_t = static_cast<double>(T * group + 16) * u32;

  Reference r;
  r.o.assign(at(shape.n_tokens(), 0, o_width), 0);
  r.o_bound = r.o;
  r.lse.assign(at(shape.batch * shape.n_heads, 0, T), 0);
  r.lse_bound = r.lse;
  r.dqkv.assign(qkv.size(), 0);
  r.dqkv_bound = r.dqkv;
  Values p(static_cast<size_t>(T));
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t h = 0; h < shape.n_heads; ++h) {
      const int64_t k_column = o_width + h / group * D;
      const int64_t v_column = k_column + shape.kv_width();
      for (int64_t i = 0; i < T; ++i) {
        const size_t q_at = at(b * T + i, h * D, width);
        const auto k_at = [&](int64_t j) { return at(b * T + j, k_column, width); };
        const auto v_at = [&](int64_t j) { return at(b * T + j, v_column, width); };
        const size_t o_at = at(b * T + i, h * D, o_width);
        double highest = -std::numeric_limits<double>::infinity();
        double s_error = 0;
        for (int64_t j = 0; j <= i; ++j) {
          const double s = dot(&qkv[q_at], &qkv[k_at(j)], D) * scale;
          p[static_cast<size_t>(j)] = s;
          highest = std::max(highest, s);
          s_error = std::max(s_error,
                             sum_error_d * scale * dot_of_magnitudes(&qkv[q_at], &qkv[k_at(j)], D));
        }
        double sum = 0;
        for (int64_t j = 0; j <= i; ++j) sum += std::exp(p[static_cast<size_t>(j)] - highest);
        const double lse = highest + std::log(sum);
        const size_t lse_at = at(b * shape.n_heads + h, i, T);
        r.lse[lse_at] = lse;
        r.lse_bound[lse_at] = s_error + sum_error_t + 2 * u32 * std::abs(lse);
        const double p_error = 2 * s_error + sum_error_t + 2 * u32 * std::abs(lse);

        for (int64_t j = 0; j <= i; ++j) {
          double& pj = p[static_cast<size_t>(j)];
          pj = std::exp(pj - lse);
          for (int64_t d = 0; d < D; ++d) {
            const double v = qkv[v_at(j) + static_cast<size_t>(d)];
            r.o[o_at + static_cast<size_t>(d)] += pj * v;
            r.o_bound[o_at + static_cast<size_t>(d)] +=
                pj * std::abs(v) * (up + p_error + sum_error_t) + tiny * (1 + std::abs(v));
          }
        }
        double delta_error = 0;
        for (int64_t d = 0; d < D; ++d) {
          const size_t x = o_at + static_cast<size_t>(d);
          r.o_bound[x] += u_out * (std::abs(r.o[x]) + r.o_bound[x]);
          delta_error += std::abs(d_o[x]) * r.o_bound[x];
        }
        const double delta = dot(&d_o[o_at], &r.o[o_at], D);
        delta_error += sum_error_d * dot_of_magnitudes(&d_o[o_at], &r.o[o_at], D);

        for (int64_t j = 0; j <= i; ++j) {
          const double pj = p[static_cast<size_t>(j)];
          const double dp = dot(&d_o[o_at], &qkv[v_at(j)], D);
          const double ds = pj * (dp - delta);
          const double dp_error = sum_error_d * dot_of_magnitudes(&d_o[o_at], &qkv[v_at(j)], D) +
                                  dp_roundoff * std::abs(dp);
          const double ds_error = std::abs(ds) * (up + p_error + sum_error_t) +
                                  (1 + up) * pj * (dp_error + delta_error) +
                                  tiny * (1 + std::abs(dp) + std::abs(delta));
          for (int64_t d = 0; d < D; ++d) {
            const size_t x = static_cast<size_t>(d);
            r.dqkv[q_at + x] += ds * qkv[k_at(j) + x] * scale;
            r.dqkv[k_at(j) + x] += ds * qkv[q_at + x] * scale;
            r.dqkv[v_at(j) + x] += pj * d_o[o_at + x];
            r.dqkv_bound[q_at + x] += ds_error * std::abs(qkv[k_at(j) + x]) * scale + tiny;
            r.dqkv_bound[k_at(j) + x] += ds_error * std::abs(qkv[q_at + x]) * scale + tiny;
            r.dqkv_bound[v_at(j) + x] +=
                pj * std::abs(d_o[o_at + x]) * (up + p_error + sum_error_t) +
                tiny * (1 + std::abs(d_o[o_at + x]));
          }
        }
      }
    }
  }
  for (size_t i = 0; i < r.dqkv.size(); ++i) {
    r.dqkv_bound[i] += u_out * (std::abs(r.dqkv[i]) + r.dqkv_bound[i]);
  }
  return r;
}

inline void expect_bounded(const Values& expected, const Guarded& found, const Values& bound,
                           std::string_view what) {
  expect_within(
      expected, found.values(), [&](size_t i) { return bound[i]; }, what);
  found.expect_guards_intact(what);
}

inline AttentionShape make_shape(int64_t batch, int64_t seq_len, int64_t n_heads,
                                 int64_t n_kv_heads, int64_t head_dim) {
  return {.batch = batch,
          .seq_len = seq_len,
          .n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim};
}

inline std::string describe(const AttentionShape& s, Dtype dtype) {
  return fmt::format("{} B {} T {} H {} K {} D {}", ops::name(dtype), s.batch, s.seq_len, s.n_heads,
                     s.n_kv_heads, s.head_dim);
}

inline const AttentionShape kShapes[] = {
    make_shape(1, 1, 1, 1, 1),    make_shape(2, 7, 2, 1, 5),    make_shape(1, 33, 4, 2, 32),
    make_shape(2, 130, 3, 3, 64), make_shape(1, 200, 6, 2, 80), make_shape(1, 17, 2, 2, 128),
    make_shape(1, 65, 1, 1, 256), make_shape(1, 141, 2, 1, 33), make_shape(3, 9, 12, 1, 16),
    make_shape(1, 530, 1, 1, 24), make_shape(1, 300, 1, 1, 97), make_shape(1, 3, 140, 1, 8),
};

}  // namespace qstep::test::attention
