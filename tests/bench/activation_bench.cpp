// The feed-forward layer's non-linearities.
#include "ops/activation.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

using ops::Activation;

void activation_forward(benchmark::State& state, Activation kind) {
  Matrix y(Dtype::kBf16, kTokens, kFeedForward);
  Matrix x(Dtype::kBf16, kTokens, ops::activation_input_width(kind, kFeedForward));
  x.randomize();
  for (auto _ : state) ops::cpu::activation_forward(y, x, kind);
  count_bytes(state, y.tensor().bytes() + x.tensor().bytes());
}

void activation_backward(benchmark::State& state, Activation kind) {
  Matrix dy(Dtype::kBf16, kTokens, kFeedForward);
  Matrix x(Dtype::kBf16, kTokens, ops::activation_input_width(kind, kFeedForward));
  const Matrix dx(Dtype::kBf16, kTokens, x.tensor().cols);
  dy.randomize();
  x.randomize();
  for (auto _ : state) ops::cpu::activation_backward(dx, dy, x, kind);
  count_bytes(state, dy.tensor().bytes() + 2 * x.tensor().bytes());
}

BENCHMARK_CAPTURE(activation_forward, gelu, Activation::kGelu)->UseRealTime();
BENCHMARK_CAPTURE(activation_forward, relu2, Activation::kRelu2)->UseRealTime();
BENCHMARK_CAPTURE(activation_forward, swiglu, Activation::kSwiglu)->UseRealTime();
BENCHMARK_CAPTURE(activation_backward, gelu, Activation::kGelu)->UseRealTime();
BENCHMARK_CAPTURE(activation_backward, relu2, Activation::kRelu2)->UseRealTime();
BENCHMARK_CAPTURE(activation_backward, swiglu, Activation::kSwiglu)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
