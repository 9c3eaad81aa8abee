// The three GEMMs of the linear layers of GPT-2 124M, BF16: as they are (plain), with a factor of
// each operand (scaled), and with factors per tile (tiled).
#include <algorithm>
#include <utility>
#include <vector>

#include "ops/gemm/gemm.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

using ops::Accumulate;
using ops::Operand;

enum class Pass : uint8_t { kFprop, kDgrad, kWgrad };
enum class Factors : uint8_t { kNone, kScales, kRowTiles };

constexpr std::pair<int64_t, int64_t> kLayers[] = {  // in, out features
    {kChannels, kChannels},
    {kChannels, 3 * kChannels},
    {kChannels, kFeedForward},
    {kFeedForward, kChannels}};

Operand with_factors(Operand x, Factors factors, const Tensor& memory, bool weight) {
  if (factors == Factors::kScales) {
    x.scale = memory.as<float>();
    x.scale_denominator = 2688;
  }
  if (factors == Factors::kRowTiles) {
    x.tile_scales = memory.as<float>();
    x.tile_rows = weight ? 128 : 1;
    x.tile_k = 128;
  }
  return x;
}

void gemm(benchmark::State& state) {
  const auto [in, out] = kLayers[state.range(0)];
  const auto pass = static_cast<Pass>(state.range(1));
  const auto factors = static_cast<Factors>(state.range(2));
  Matrix x(Dtype::kBf16, kTokens, in), w(Dtype::kBf16, out, in), dy(Dtype::kBf16, kTokens, out);
  Matrix scales(Dtype::kF32, kTokens * kFeedForward / 128, 1), bias(Dtype::kBf16, 1, out);
  for (Matrix* m : {&x, &w, &dy, &scales, &bias}) m->randomize();
  const Matrix y(Dtype::kBf16, kTokens, out), dx(Dtype::kBf16, kTokens, in);
  const Matrix dw(Dtype::kF32, out, in);
  const auto of = [&](Operand operand, bool weight = false) {
    return with_factors(operand, factors, scales, weight);
  };
  ops::cpu::Gemm run;
  for (auto _ : state) {
    if (pass == Pass::kFprop) {
      run(y, of(ops::rowwise(x)), of(ops::rowwise(w), true), 1, Accumulate::kNo, bias);
    } else if (pass == Pass::kDgrad) {
      run(dx, of(ops::rowwise(dy)), of(ops::columnwise(w), true), 1, Accumulate::kNo, {});
    } else {
      run(dw, of(ops::columnwise(dy)), of(ops::columnwise(x)), 1, Accumulate::kYes, {});
    }
  }
  count_flops(state, 2.0 * static_cast<double>(kTokens * in * out));
}

BENCHMARK(gemm)
    ->ArgNames({"layer", "pass", "factors"})
    ->ArgsProduct({{0, 1, 2, 3}, {0, 1, 2}, {0, 1, 2}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace qstep::bench
