// RMSNorm and LayerNorm over the residual stream.
#include "ops/layernorm.h"
#include "ops/rmsnorm.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

using ops::Accumulate;
using ops::Workspace;

constexpr int64_t kElements = kTokens * kChannels;
constexpr float kEps = 1e-5f;

struct NormTensors {
  Matrix x = random(kTokens), delta = random(kTokens), dy = random(kTokens), w = random(1),
         b = random(1), y = random(kTokens), dx = random(kTokens);
  Matrix mean{Dtype::kF32, 1, kTokens}, rstd{Dtype::kF32, 1, kTokens};
  Matrix dw{Dtype::kF32, 1, kChannels}, db{Dtype::kF32, 1, kChannels};
  Workspace workspace;

  static Matrix random(int64_t rows) {
    Matrix m(Dtype::kBf16, rows, kChannels);
    m.randomize();
    return m;
  }
};

void rmsnorm_forward(benchmark::State& state) {
  NormTensors t;
  for (auto _ : state) ops::cpu::rmsnorm_forward(t.y, t.rstd, t.x, t.w, kEps);
  count_bytes(state, 4 * kElements);
}
void residual_rmsnorm_forward(benchmark::State& state) {
  NormTensors t;
  for (auto _ : state) {
    ops::cpu::residual_rmsnorm_forward(t.dx, t.y, t.rstd, t.x, t.delta, t.w, kEps);
  }
  count_bytes(state, 8 * kElements);
}
void rmsnorm_backward(benchmark::State& state) {
  NormTensors t;
  ops::cpu::rmsnorm_forward(t.y, t.rstd, t.x, t.w, kEps);
  for (auto _ : state) {
    ops::cpu::rmsnorm_backward(t.dx, t.dw, t.dy, t.x, t.w, t.rstd, Accumulate::kNo, Accumulate::kNo,
                               t.workspace);
  }
  count_bytes(state, 6 * kElements);
}
void layernorm_forward(benchmark::State& state) {
  NormTensors t;
  for (auto _ : state) ops::cpu::layernorm_forward(t.y, t.mean, t.rstd, t.x, t.w, t.b, kEps);
  count_bytes(state, 4 * kElements);
}
void residual_layernorm_forward(benchmark::State& state) {
  NormTensors t;
  for (auto _ : state) {
    ops::cpu::residual_layernorm_forward(t.dx, t.y, t.mean, t.rstd, t.x, t.delta, t.w, t.b, kEps);
  }
  count_bytes(state, 8 * kElements);
}
void layernorm_backward(benchmark::State& state) {
  NormTensors t;
  ops::cpu::layernorm_forward(t.y, t.mean, t.rstd, t.x, t.w, t.b, kEps);
  for (auto _ : state) {
    ops::cpu::layernorm_backward(t.dx, t.dw, t.db, t.dy, t.x, t.w, t.mean, t.rstd, Accumulate::kNo,
                                 Accumulate::kNo, t.workspace);
  }
  count_bytes(state, 6 * kElements);
}
BENCHMARK(rmsnorm_forward)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(residual_rmsnorm_forward)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(rmsnorm_backward)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(layernorm_forward)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(residual_layernorm_forward)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(layernorm_backward)->Unit(benchmark::kMicrosecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
