// Attention, forward and backward, counted with the multiplications a causal mask leaves: T (T + 1)
// / 2 scores a head, 2 products forward and 5 backward.
#include "ops/attention/attention.h"
#include "ops/qk_norm.h"
#include "ops/rope.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

using ops::AttentionShape;
using ops::Workspace;

struct AttentionTensors {
  AttentionTensors(Dtype dtype, const AttentionShape& s)
      : qkv(dtype, s.n_tokens(), s.qkv_width()),
        dqkv(dtype, s.n_tokens(), s.qkv_width()),
        o(dtype, s.n_tokens(), s.q_width()),
        d_o(dtype, s.n_tokens(), s.q_width()),
        lse(Dtype::kF32, s.batch * s.n_heads, s.seq_len) {
    qkv.randomize();
    d_o.randomize();
  }
  Matrix qkv, dqkv, o, d_o, lse;
  Workspace workspace;
};

AttentionShape shape_of(const benchmark::State& state) {
  return {.batch = state.range(0),
          .seq_len = state.range(1),
          .n_heads = state.range(2),
          .n_kv_heads = state.range(3),
          .head_dim = state.range(4)};
}

double product_flops(const AttentionShape& s) {
  return static_cast<double>(s.batch * s.n_heads * s.seq_len * (s.seq_len + 1) * s.head_dim);
}

template <Dtype kDtype>
void attention_forward(benchmark::State& state) {
  const AttentionShape shape = shape_of(state);
  AttentionTensors t(kDtype, shape);
  for (auto _ : state) ops::cpu::attention_forward(t.o, t.lse, t.qkv, shape, t.workspace);
  count_flops(state, 2 * product_flops(shape));
}
template <Dtype kDtype>
void attention_backward(benchmark::State& state) {
  const AttentionShape shape = shape_of(state);
  AttentionTensors t(kDtype, shape);
  ops::cpu::attention_forward(t.o, t.lse, t.qkv, shape, t.workspace);
  for (auto _ : state) {
    ops::cpu::attention_backward(t.dqkv, t.d_o, t.qkv, t.o, t.lse, shape, t.workspace);
  }
  count_flops(state, 5 * product_flops(shape));
}

// One new position against T cached ones: bytes of the caches.
void attention_cached(benchmark::State& state) {
  AttentionShape shape = shape_of(state);
  const int64_t n_cached = shape.seq_len;
  shape.seq_len = 1;
  AttentionTensors t(Dtype::kBf16, shape);
  Matrix k_cache(Dtype::kBf16, n_cached, shape.kv_width());
  Matrix v_cache(Dtype::kBf16, n_cached, shape.kv_width());
  k_cache.randomize();
  v_cache.randomize();
  for (auto _ : state) {
    ops::cpu::attention_cached(t.o, k_cache, v_cache, t.qkv, shape, n_cached - 1, t.workspace);
  }
  count_bytes(state, k_cache.tensor().bytes() + v_cache.tensor().bytes());
}

constexpr AttentionShape kGpt2{kBatch, kSeqLen, kHeads, kHeads, kHeadDim};

void rope(benchmark::State& state) {
  AttentionTensors t(Dtype::kBf16, kGpt2);
  std::vector<float> values(static_cast<size_t>(kSeqLen * kHeadDim));
  ops::fill_rope_table(values, kSeqLen, kHeadDim, 10000.0);
  const Tensor table = ops::view(std::span<float>(values), kSeqLen, kHeadDim);
  for (auto _ : state) ops::cpu::rope(t.qkv, table, kGpt2, 0, ops::Direction::kForward);
  count_bytes(state, kTokens * 2 * kChannels * 4);
}

struct QkNormTensors : AttentionTensors {
  QkNormTensors() : AttentionTensors(Dtype::kBf16, kGpt2) {
    wq.randomize();
    wk.randomize();
  }
  Matrix wq{Dtype::kBf16, 1, kHeadDim}, wk{Dtype::kBf16, 1, kHeadDim};
  Matrix dwq{Dtype::kF32, 1, kHeadDim}, dwk{Dtype::kF32, 1, kHeadDim};
  Matrix rstd{Dtype::kF32, kTokens, 2 * kHeads};
};

void qk_norm_forward(benchmark::State& state) {
  QkNormTensors t;
  for (auto _ : state) {
    ops::cpu::qk_norm_forward(t.dqkv, t.rstd, t.qkv, t.wq, t.wk, kGpt2, 1e-6f);
  }
  count_bytes(state, kTokens * 3 * kChannels * 4);
}
void qk_norm_backward(benchmark::State& state) {
  QkNormTensors t;
  ops::cpu::qk_norm_forward(t.dqkv, t.rstd, t.qkv, t.wq, t.wk, kGpt2, 1e-6f);
  for (auto _ : state) {
    ops::cpu::qk_norm_backward(t.dqkv, t.dwq, t.dwk, t.qkv, t.wq, t.wk, t.rstd, kGpt2,
                               ops::Accumulate::kNo, t.workspace);
  }
  count_bytes(state, kTokens * 2 * kChannels * 6);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"B", "T", "H", "K", "D"})->UseRealTime();
  bench->Args({4, 256, 12, 12, 64})->Args({1, 2048, 12, 12, 64})->Args({1, 8192, 2, 2, 64});
  bench->Args({1, 1024, 16, 4, 128})->Args({4, 512, 10, 10, 80});
}

BENCHMARK(attention_forward<Dtype::kBf16>)->Apply(shapes);
BENCHMARK(attention_backward<Dtype::kBf16>)->Apply(shapes);
BENCHMARK(attention_forward<Dtype::kF32>)->Apply(shapes);
BENCHMARK(attention_backward<Dtype::kF32>)->Apply(shapes);
BENCHMARK(attention_cached)
    ->ArgNames({"B", "T", "H", "K", "D"})
    ->Args({1, 2048, 12, 12, 64})
    ->Args({1, 2048, 32, 8, 64})
    ->UseRealTime();
BENCHMARK(rope)->UseRealTime();
BENCHMARK(qk_norm_forward)->UseRealTime();
BENCHMARK(qk_norm_backward)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
