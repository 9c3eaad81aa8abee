// Quantizers on tensors larger than the caches, and on an activation of GPT-2 124M. Bytes are what
// an orientation has to move: the source once per pass (nvfp4 and FP8 need the tensor's amax before
// they can begin, so twice), each decoded BF16 operand once.
#include "ops/ops.h"
#include "ops/quantize/quantize.h"
#include "tests/bench/bench.h"
#include "tests/bench/quantize_cases.h"

namespace qstep::bench {
namespace {

using ops::Orientation;
using ops::QuantizedTensor;

void quantize(benchmark::State& state, const QuantizeCase& c, int64_t rows, int64_t cols) {
  const auto backend = ops::make_cpu_ops();
  const Matrix x = std::move(Matrix(Dtype::kBf16, rows, cols).randomize());
  const bool shared = precision::transposable(c.row, c.column);
  const auto lay_out = [&](ops::Arena& arena) {
    auto row = ops::lay_out_quantized(arena, "row", c.row, Orientation::kRowwise, rows, cols);
    auto column = ops::lay_out_quantized(arena, "column", c.column, Orientation::kColumnwise, rows,
                                         cols, {.values = !shared});
    if (shared) column.values = row.values;
    return std::pair(row, column);
  };
  ops::Arena measure;
  lay_out(measure);
  const ops::Buffer memory = backend->allocate(measure.peak_bytes());
  ops::Arena place(memory);
  const auto [row, column] = lay_out(place);
  ops::QuantCall call;
  for (auto _ : state) {
    backend->quantize(row, column, x, call);
    benchmark::ClobberMemory();
  }
  count_bytes(state, rows * cols * 2 * (c.passes + (shared ? 1 : 2)));
}

const bool registered = [] {
  for (const QuantizeCase& c : kQuantizeCases) {
    for (const auto& [label, rows, cols] :
         {std::tuple{" 8192 x 8192", int64_t{8192}, int64_t{8192}},
          std::tuple{" 1024 x 3072", kTokens, kFeedForward}}) {
      benchmark::RegisterBenchmark((std::string("quantize ") + c.name + label).c_str(),
                                   [&c, rows = rows, cols = cols](benchmark::State& state) {
                                     quantize(state, c, rows, cols);
                                   })
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    }
  }
  return true;
}();

}  // namespace
}  // namespace qstep::bench
