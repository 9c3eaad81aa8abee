// Token and position embeddings.
#include "ops/embedding.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

void embedding_forward(benchmark::State& state) {
  const Matrix x(Dtype::kBf16, kTokens, kChannels), wte(Dtype::kBf16, kPaddedVocab, kChannels),
      wpe(Dtype::kBf16, kSeqLen, kChannels);
  Matrix tokens(Dtype::kI32, 1, kTokens);
  tokens.fill_tokens(kVocab);
  for (auto _ : state) ops::cpu::embedding_forward(x, tokens, wte, 0, wpe, kSeqLen, 0);
  count_bytes(state, 2 * x.tensor().bytes() + wpe.tensor().bytes());
}

void embedding_backward(benchmark::State& state) {
  Matrix dx(Dtype::kBf16, kTokens, kChannels), tokens(Dtype::kI32, 1, kTokens);
  const Matrix dwte(Dtype::kF32, kPaddedVocab, kChannels), dwpe(Dtype::kF32, kSeqLen, kChannels);
  dx.randomize();
  tokens.fill_tokens(kVocab);
  for (auto _ : state) {
    ops::cpu::embedding_backward(dwte, 0, dwpe, dx, tokens, kSeqLen, ops::Accumulate::kNo);
  }
  // dx twice, the touched rows of dwte read and written, dwpe written.
  count_bytes(state, 2 * dx.tensor().bytes() + 8 * dx.tensor().size() + dwpe.tensor().bytes());
}

BENCHMARK(embedding_forward)->Unit(benchmark::kMicrosecond)->UseRealTime();
BENCHMARK(embedding_backward)->Unit(benchmark::kMicrosecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
