// A problem for fused attention in BF16, whose rows lie apart by multiples of 16 bytes, and what
// its kernels may make of it.
#pragma once

#include "ops/attention/attention_plan.h"
#include "tests/ops/attention_reference.h"

namespace qstep::test::attention {

// reference() for kernels that round as those of ops/attention/attention.h do, and besides
//   dp to BF16 (whether it is dp or ds that waits in scratch for dq the library does not say),
//   with grouped queries dk and dv of each query head to BF16 before they are added up.
inline Reference fused_reference(const AttentionShape& shape, const Values& qkv,
                                 const Values& d_o) {
  Reference r = reference(shape, qkv, d_o, Dtype::kBf16, kBf16Roundoff);
  const int64_t group = shape.n_heads / shape.n_kv_heads, D = shape.head_dim;
  if (group == 1) return r;
  // The same where every query head has its own copy of keys and values.
  AttentionShape own = shape;
  own.n_kv_heads = shape.n_heads;
  const int64_t kv_columns = shape.q_width();
  const auto column = [&](int64_t of, int64_t h) { return kv_columns + (of + h) * D; };
  Values copies(at(shape.n_tokens(), 0, own.qkv_width()));
  for (int64_t n = 0; n < shape.n_tokens(); ++n) {
    const auto copy = [&](int64_t to, int64_t from, int64_t count) {
      for (int64_t d = 0; d < count; ++d) {
        copies[at(n, to + d, own.qkv_width())] = qkv[at(n, from + d, shape.qkv_width())];
      }
    };
    copy(0, 0, shape.q_width());
    for (int64_t h = 0; h < shape.n_heads; ++h) {
      copy(column(0, h), column(0, h / group), D);
      copy(column(own.n_kv_heads, h), column(shape.n_kv_heads, h / group), D);
    }
  }
  const Reference each = reference(own, copies, d_o, Dtype::kBf16, kBf16Roundoff);
  for (int64_t n = 0; n < shape.n_tokens(); ++n) {
    for (int64_t h = 0; h < shape.n_heads; ++h) {
      for (const auto& [from, to] :
           {std::pair(column(0, h), column(0, h / group)),
            std::pair(column(own.n_kv_heads, h), column(shape.n_kv_heads, h / group))}) {
        for (int64_t d = 0; d < D; ++d) {
          const size_t x = at(n, from + d, own.qkv_width());
          r.dqkv_bound[at(n, to + d, shape.qkv_width())] +=
              (1 + kBf16Roundoff) * kBf16Roundoff * (std::abs(each.dqkv[x]) + each.dqkv_bound[x]);
        }
      }
    }
  }
  return r;
}

struct FusedCase {
  FusedCase(const AttentionShape& s, uint64_t seed, double size = 1.5)
      : shape(s),
        qkv(Dtype::kBf16, s.n_tokens(), s.qkv_width(), 8),
        d_o(Dtype::kBf16, s.n_tokens(), s.q_width(), 16),
        o(Dtype::kBf16, s.n_tokens(), s.q_width(), 24),
        lse(Dtype::kF32, s.batch * s.n_heads, s.seq_len, 4),
        dqkv(Dtype::kBf16, s.n_tokens(), s.qkv_width(), 40) {
    Random random(seed);
    qkv.fill(random, -size, size);
    d_o.fill(random, -size, size);
  }

  ops::AttentionCall call(ops::Direction direction) const {
    ops::AttentionCall c{.shape = shape,
                         .direction = direction,
                         .qkv = qkv,
                         .o = o,
                         .lse = lse,
                         .d_o = {},
                         .dqkv = {}};
    if (direction == ops::Direction::kBackward) {
      c.d_o = d_o;
      c.dqkv = dqkv;
    }
    return c;
  }

  void expect_bounded_results() const {
    const Reference r = fused_reference(shape, qkv.values(), d_o.values());
    expect_bounded(r.o, o, r.o_bound, "o");
    expect_bounded(r.lse, lse, r.lse_bound, "lse");
    expect_bounded(r.dqkv, dqkv, r.dqkv_bound, "dqkv");
  }

  AttentionShape shape;
  Guarded qkv, d_o, o, lse, dqkv;
};

}  // namespace qstep::test::attention
