// The rows of attention as a GPU's thread blocks compute them, run on the host: within the bounds
// of the formulas, and the same bits whichever block and thread comes first.
#include "ops/attention/attention_kernels.h"

#include <gtest/gtest.h>

#include "tests/ops/attention_reference.h"
#include "tests/support/host_launch.h"

namespace qstep::test::attention {
namespace {

class AttentionKernels : public testing::TestWithParam<Dtype> {};
INSTANTIATE_TEST_SUITE_P(Types, AttentionKernels, testing::Values(Dtype::kF32, Dtype::kBf16),
                         [](const auto& type) { return std::string(ops::name(type.param)); });

TEST_P(AttentionKernels, ForwardAndBackwardStayWithinTheirBounds) {
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(describe(shape, GetParam()));
    Random random(21);
    Guarded qkv(GetParam(), shape.n_tokens(), shape.qkv_width(), 3);
    Guarded d_o(GetParam(), shape.n_tokens(), shape.q_width(), 5);
    qkv.fill(random, -1.5, 1.5);
    d_o.fill(random, -1.5, 1.5);
    const Reference r = reference(shape, qkv.values(), d_o.values(), GetParam());
    std::vector<std::byte> bits;
    for_each_order([&](const HostLaunch& launch) {
      Guarded o(GetParam(), shape.n_tokens(), shape.q_width(), 2);
      Guarded lse(Dtype::kF32, shape.batch * shape.n_heads, shape.seq_len, 1);
      Guarded dqkv(GetParam(), shape.n_tokens(), shape.qkv_width(), 7);
      ops::device::attention_forward(launch, o, lse, qkv, shape);
      ops::device::attention_backward(launch, dqkv, d_o, qkv, o, lse, shape);
      expect_bounded(r.o, o, r.o_bound, "o");
      expect_bounded(r.lse, lse, r.lse_bound, "lse");
      expect_bounded(r.dqkv, dqkv, r.dqkv_bound, "dqkv");
      const std::vector<std::byte> found = bits_of(o, lse, dqkv);
      if (bits.empty()) bits = found;
      EXPECT_EQ(bits, found);
    });
  }
}

// Scores of several hundred: the running maximum keeps every exponential in range.
TEST_P(AttentionKernels, LargeScoresStayWithinTheirBounds) {
  const AttentionShape shape = make_shape(1, 300, 2, 1, 40);
  Random random(22);
  Guarded qkv(GetParam(), shape.n_tokens(), shape.qkv_width());
  Guarded d_o(GetParam(), shape.n_tokens(), shape.q_width());
  qkv.fill(random, -30, 30);
  d_o.fill(random, -30, 30);
  Guarded o(GetParam(), shape.n_tokens(), shape.q_width());
  Guarded lse(Dtype::kF32, shape.batch * shape.n_heads, shape.seq_len);
  Guarded dqkv(GetParam(), shape.n_tokens(), shape.qkv_width());
  const HostLaunch launch;
  ops::device::attention_forward(launch, o, lse, qkv, shape);
  ops::device::attention_backward(launch, dqkv, d_o, qkv, o, lse, shape);
  const Reference r = reference(shape, qkv.values(), d_o.values(), GetParam());
  expect_bounded(r.o, o, r.o_bound, "o");
  expect_bounded(r.lse, lse, r.lse_bound, "lse");
  expect_bounded(r.dqkv, dqkv, r.dqkv_bound, "dqkv");
}

// Keys and values from caches give the bits of those in qkv.
TEST_P(AttentionKernels, CachesGiveTheBitsOfForward) {
  const AttentionShape shape = make_shape(1, 270, 6, 2, 20);
  Random random(23);
  Guarded qkv(GetParam(), shape.seq_len, shape.qkv_width(), 1);
  qkv.fill(random, -1.5, 1.5);
  Guarded whole(GetParam(), shape.seq_len, shape.q_width());
  Guarded lse(Dtype::kF32, shape.n_heads, shape.seq_len);
  const HostLaunch launch;
  ops::device::attention_forward(launch, whole, lse, qkv, shape);
  const Tensor k = qkv.tensor().col_range(shape.q_width(), shape.kv_width());
  const Tensor v = qkv.tensor().col_range(shape.q_width() + shape.kv_width(), shape.kv_width());
  Guarded o(GetParam(), shape.seq_len, shape.q_width());
  for (const auto& [first, n] : {std::pair<int64_t, int64_t>{0, 200}, {200, 69}, {269, 1}}) {
    AttentionShape part = shape;
    part.seq_len = n;
    ops::device::attention_of_caches(launch, o.tensor().row_range(first, n), k, v,
                                     qkv.tensor().row_range(first, n), part, first);
  }
  expect_same_bits(whole, o, "o");
}

}  // namespace
}  // namespace qstep::test::attention
