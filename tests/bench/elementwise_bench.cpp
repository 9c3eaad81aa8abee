// Casts, sums and the gradient of a bias.
#include "ops/bias.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

constexpr int64_t kElements = kTokens * kFeedForward;

void cast_to_bf16(benchmark::State& state) {
  Matrix x(Dtype::kF32, 1, kParameters);
  const Matrix y(Dtype::kBf16, 1, kParameters);
  x.randomize();
  for (auto _ : state) ops::cpu::cast(y, x);
  count_bytes(state, 6 * kParameters);
}
void add_f32(benchmark::State& state) {  // the tree of micro-batch gradients
  Matrix a(Dtype::kF32, 1, kParameters);
  const Matrix b(Dtype::kF32, 1, kParameters);
  a.randomize();
  for (auto _ : state) ops::cpu::add(b, b, a);
  count_bytes(state, 12 * kParameters);
}
void zero_f32(benchmark::State& state) {
  const Matrix x(Dtype::kF32, 1, kParameters);
  for (auto _ : state) ops::cpu::zero(x);
  count_bytes(state, 4 * kParameters);
}
void bias_backward(benchmark::State& state) {
  Matrix dy(Dtype::kBf16, kTokens, kFeedForward);
  const Matrix db(Dtype::kF32, 1, kFeedForward);
  dy.randomize();
  ops::Workspace workspace;
  for (auto _ : state) ops::cpu::bias_backward(db, dy, ops::Accumulate::kNo, workspace);
  count_bytes(state, 2 * kElements);
}

BENCHMARK(cast_to_bf16)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(add_f32)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(zero_f32)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(bias_backward)->Unit(benchmark::kMicrosecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
