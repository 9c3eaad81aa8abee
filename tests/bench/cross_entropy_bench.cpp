// The loss over BF16 logits, in place.
#include "ops/cross_entropy.h"
#include "ops/cross_entropy_part.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

void cross_entropy_forward(benchmark::State& state) {
  Matrix logits(Dtype::kBf16, kTokens, kPaddedVocab), targets(Dtype::kI32, 1, kTokens);
  const Matrix loss(Dtype::kF32, 1, kTokens);
  logits.randomize();
  targets.fill_tokens(kVocab);
  for (auto _ : state) ops::cpu::cross_entropy_forward(loss, logits, targets, kVocab);
  count_bytes(state, logits.tensor().bytes());
}

void cross_entropy_backward(benchmark::State& state) {
  Matrix logits(Dtype::kBf16, kTokens, kPaddedVocab), targets(Dtype::kI32, 1, kTokens);
  const Matrix loss(Dtype::kF32, 1, kTokens);
  logits.randomize();
  targets.fill_tokens(kVocab);
  // The gradients of one pass are the logits of the next: as good as any.
  for (auto _ : state) ops::cpu::cross_entropy_backward(loss, logits, targets, kVocab, 1.0f);
  count_bytes(state, 2 * logits.tensor().bytes());
}

// The columns of one of `state.range(0)` ranks. The logits pass through memory three times, twice
// in the operation on whole rows.
void cross_entropy_parts(benchmark::State& state) {
  const int64_t n_ranks = state.range(0), columns = kPaddedVocab / n_ranks;
  Matrix logits(Dtype::kBf16, kTokens, columns), targets(Dtype::kI32, 1, kTokens);
  const Matrix parts(Dtype::kF32, 3 * n_ranks, kTokens), loss(Dtype::kF32, 1, kTokens),
      lse(Dtype::kF32, 1, kTokens);
  logits.randomize();
  targets.fill_tokens(kVocab);
  const Tensor part = parts.tensor().row_range(0, 3);
  for (auto _ : state) {
    ops::cpu::cross_entropy_part(part, logits, targets, 0, kVocab);
    ops::cpu::cross_entropy_join(loss, lse, parts);
    ops::cpu::cross_entropy_part_backward(logits, lse, targets, 0, kVocab, 1.0f);
  }
  count_bytes(state, 3 * logits.tensor().bytes());
}

BENCHMARK(cross_entropy_forward)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(cross_entropy_backward)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(cross_entropy_parts)
    ->Arg(1)
    ->Arg(2)
    ->Arg(4)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace qstep::bench
