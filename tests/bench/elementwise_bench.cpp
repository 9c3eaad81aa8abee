// Casts, sums and the gradient of a bias.
#include <vector>

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
void add_f32(
    benchmark::State& state) {  // the tree of micro-batch gradients: so many, into the first
  const int64_t n = state.range(0);
  std::vector<Matrix> buffers;
  for (int64_t i = 0; i < n; ++i) buffers.emplace_back(Dtype::kF32, 1, kParameters);
  for (Matrix& x : buffers) x.randomize();
  const std::vector<ops::Tensor> x(buffers.begin(), buffers.end());
  for (auto _ : state) ops::cpu::add(x[0], x);
  count_bytes(state, (n + 1) * 4 * kParameters);
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
BENCHMARK(add_f32)->DenseRange(2, ops::kMaxAddends)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(zero_f32)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(bias_backward)->Unit(benchmark::kMicrosecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
