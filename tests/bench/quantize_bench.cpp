// Quantizers on tensors larger than the caches, and on an activation of GPT-2 124M. Bytes are what
// an orientation has to move: the source once per pass (nvfp4 and FP8 need the tensor's amax before
// they can begin, so twice), each decoded BF16 operand once.
#include "ops/ops.h"
#include "ops/quantize.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

using ops::Orientation;
using ops::QuantizedTensor;
using precision::QuantSpec;

QuantSpec nvfp4() { return precision::default_spec(precision::QuantFormat::kNvfp4); }
QuantSpec with_hadamard(QuantSpec spec, int size) {
  spec.hadamard = size;
  return spec;
}
QuantSpec stochastic(QuantSpec spec) {
  spec.rounding = precision::Rounding::kStochastic;
  return spec;
}
QuantSpec square(QuantSpec spec) {
  spec.block = {spec.block.k, spec.block.k};
  return spec;
}
QuantSpec four_over_six(QuantSpec spec) {
  spec.four_over_six = precision::FourOverSix::kMse;
  spec.e4m3_max = 256;
  return spec;
}
QuantSpec ms_eden() {
  QuantSpec spec = with_hadamard(nvfp4(), 128);
  spec.rounding = precision::Rounding::kMsEden;
  spec.signs = precision::Signs::kPerStep;
  return spec;
}
QuantSpec of(precision::QuantFormat format) { return precision::default_spec(format); }
QuantSpec fp8_blocks(int rows) {
  QuantSpec spec = of(precision::QuantFormat::kFp8E4m3);
  spec.block = {rows, 128};
  return spec;
}

struct Case {
  const char* name;
  QuantSpec row, column;
  int passes;  // over the source
};

const Case kCases[] = {
    {"nvfp4 x: rowwise, columnwise RHT-16", nvfp4(), with_hadamard(nvfp4(), 16), 2},
    {"nvfp4 dy: the same, stochastic", stochastic(nvfp4()), stochastic(with_hadamard(nvfp4(), 16)),
     2},
    {"nvfp4 w: 16x16", square(nvfp4()), square(nvfp4()), 2},
    {"nvfp4 4/6", four_over_six(nvfp4()), four_over_six(nvfp4()), 2},
    {"ms-eden, Hadamard-128", ms_eden(), ms_eden(), 2},
    {"mxfp8: 1x32 and 32x1", of(precision::QuantFormat::kMxfp8E4m3),
     of(precision::QuantFormat::kMxfp8E4m3), 1},
    {"fp8 per tensor", of(precision::QuantFormat::kFp8E4m3), of(precision::QuantFormat::kFp8E4m3),
     2},
    {"fp8 1x128 and 128x1", fp8_blocks(1), fp8_blocks(1), 1},
    {"fp8 128x128", fp8_blocks(128), fp8_blocks(128), 1},
};

void quantize(benchmark::State& state, const Case& c, int64_t rows, int64_t cols) {
  const auto backend = ops::make_cpu_ops();
  const Matrix x = std::move(Matrix(Dtype::kBf16, rows, cols).randomize());
  const bool shared = precision::transposable(c.row, c.column);
  const auto lay_out = [&](ops::Arena& arena) {
    auto row = ops::lay_out_quantized(arena, "row", c.row, Orientation::kRowwise, rows, cols);
    auto column =
        ops::lay_out_quantized(arena, "column", c.column, Orientation::kColumnwise, rows, cols,
                               shared ? ops::TakeValues::kNo : ops::TakeValues::kYes);
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
  for (const Case& c : kCases) {
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
