// The loss over BF16 logits, in place.
#include "ops/cross_entropy.h"
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

BENCHMARK(cross_entropy_forward)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(cross_entropy_backward)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
