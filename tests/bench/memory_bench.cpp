// The memory's own speed, as a reference: McCalpin's STREAM triad.
#include "ops/simd/simd.h"
#include "tests/bench/bench.h"

namespace qstep::bench {
namespace {

constexpr int64_t kElements = 1 << 26;  // 256 MiB of FP32 an array: far outside every cache
constexpr int64_t kBlock = 16384;

// y = a + s b: 12 bytes an element as STREAM counts (16 with the read that a write causes).
void triad(benchmark::State& state) {
  const Matrix y(Dtype::kF32, 1, kElements);
  const Matrix a(Dtype::kF32, 1, kElements);
  const Matrix b(Dtype::kF32, 1, kElements);
  float* const py = y.tensor().as<float>();
  const float* const pa = a.tensor().as<float>();
  const float* const pb = b.tensor().as<float>();
  const ops::F32x16 s = ops::broadcast(3.0f);
  for (auto _ : state) {
    ops::parallel_blocks(kElements, kBlock, [&](int64_t first, int64_t n) {
      ops::for_each_group(n, [&](int64_t i, int64_t lanes) {
        const int64_t k = first + i;
        ops::store_n(py + k, ops::fma(s, ops::load_n(pb + k, lanes), ops::load_n(pa + k, lanes)),
                     lanes);
      });
    });
    benchmark::ClobberMemory();
  }
  count_bytes(state, 12 * kElements);
}
BENCHMARK(triad)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace qstep::bench
