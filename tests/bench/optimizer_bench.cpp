// AdamW and the gradient's norm over all 124M parameters.
#include "ops/adamw.h"
#include "ops/reduce.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

void adamw(benchmark::State& state) {
  Matrix grad(Dtype::kF32, 1, kParameters), factor(Dtype::kF32, 1, 1);
  const Matrix w(Dtype::kBf16, 1, kParameters), master(Dtype::kF32, 1, kParameters),
      m(Dtype::kF32, 1, kParameters), v(Dtype::kF32, 1, kParameters);
  grad.randomize();
  factor.tensor().as<float>()[0] = 0.5f;
  ops::AdamWParams params{.lr = 1e-3f, .weight_decay = 0.1f};
  for (auto _ : state) {
    ops::cpu::adamw(w, master, m, v, grad, factor, params);
    ++params.t;
  }
  count_bytes(state,
              30 * kParameters);  // reads master, m, v, grad; writes master, m, v and 2 bytes of w
}

void grad_norm(benchmark::State& state) {
  Matrix grad(Dtype::kF32, 1, kParameters);
  const Matrix norm(Dtype::kF32, 1, 1);
  const Matrix sums(Dtype::kF32, 1, ops::reduce_chunks(kParameters));
  grad.randomize();
  for (auto _ : state) {
    ops::cpu::square_sums(sums, grad);
    ops::cpu::norm_of_sums(norm, sums);
  }
  count_bytes(state, 4 * kParameters);
}

BENCHMARK(adamw)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(grad_norm)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
