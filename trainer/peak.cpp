#include "trainer/peak.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "ops/ops.h"
#include "ops/simd.h"
#include "trainer/machine.h"

namespace qstep::trainer {

namespace {

using Clock = std::chrono::steady_clock;

// Per figure. Short repetitions: other work on the machine leaves some of them alone.
constexpr int kRepetitions = 100;
// Independent sums in flight, of sixteen floats each: more than latency times throughput (4 cycles
// x 2), and no more than the registers hold (32 of sixteen, or 16 of eight less two constants).
constexpr int kChains = QSTEP_AVX512 ? 16 : 6;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The best rate of work() over `seconds`; work() does `amount` and is called at least three times,
// the first one to warm up.
template <class Work>
double best_rate(double seconds, double amount, Work&& work) {
  work();
  double best = 0;
  const Clock::time_point start = Clock::now();
  for (int turns = 0; turns < 2 || seconds_since(start) < seconds; ++turns) {
    const Clock::time_point begin = Clock::now();
    work();
    best = std::max(best, amount / seconds_since(begin));
  }
  return best;
}

// Runs chain(n_turns) on every thread; chain returns something that depends on every operation, so
// that none is left out. n_turns is found on one thread: a pool that waits for a busy processor
// tells nothing about the processor.
template <class Chain>
double register_rate(double seconds, double flops_per_turn, Chain&& chain) {
  volatile float sink = 0;
  int64_t n_turns = 1000;
  for (double took = 0; took < seconds / kRepetitions && n_turns < (int64_t{1} << 40);) {
    n_turns *= 2;
    took = seconds;
    for (int i = 0; i < 5; ++i) {
      const Clock::time_point begin = Clock::now();
      sink = chain(n_turns);
      took = std::min(took, seconds_since(begin));
    }
  }
  const double flops = flops_per_turn * static_cast<double>(n_turns) * omp_get_max_threads();
  return best_rate(seconds, flops, [&] {
    float sum = 0;
#pragma omp parallel reduction(+ : sum)
    sum += chain(n_turns);
    sink = sum;
  });
}

// Values stay finite for any number of turns: x -> x / 2 + 1.
float fp32_chain(int64_t n_turns) {
  ops::F32x16 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = ops::broadcast(static_cast<float>(i));
  const ops::F32x16 half = ops::broadcast(0.5f), one = ops::broadcast(1.0f);
  for (int64_t turn = 0; turn < n_turns; ++turn) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = ops::fma(sums[i], half, one);
  }
  float sum = 0;
  for (const ops::F32x16& x : sums) sum += ops::reduce_add(x);
  return sum;
}
constexpr double kFp32FlopsPerTurn = 2.0 * kChains * ops::kLanes;

#if defined(__AVX512BF16__)
// Sixteen sums of two products each. The products are zero, and the time does not depend on values.
float bf16_chain(int64_t n_turns) {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f));
  const auto b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.0f), _mm512_set1_ps(0.0f));
  for (int64_t turn = 0; turn < n_turns; ++turn) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  }
  float sum = 0;
  for (const __m512 x : sums) sum += _mm512_reduce_add_ps(x);
  return sum;
}
constexpr double kBf16FlopsPerTurn = 4.0 * kChains * ops::kLanes;
#endif

// Operands in the layout that oneDNN likes best: packing is not part of the figure.
double gemm_rate(double seconds, dnnl::memory::data_type type, int64_t size) {
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    dnnl::stream stream(engine);
    const dnnl::memory::desc any({size, size}, type, dnnl::memory::format_tag::any);
    const dnnl::memory::desc plain({size, size}, type, dnnl::memory::format_tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc desc(engine, plain, any, plain);
#else
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(plain, any, plain), engine);
#endif
    // Zeros: the time of a product does not depend on values (denormals apart).
    std::vector<std::vector<char>> storage;
    const auto memory = [&](const dnnl::memory::desc& md) {
      storage.emplace_back(md.get_size(), 0);
      return dnnl::memory(md, engine, storage.back().data());
    };
    std::unordered_map<int, dnnl::memory> args = {{DNNL_ARG_SRC, memory(desc.src_desc())},
                                                  {DNNL_ARG_WEIGHTS, memory(desc.weights_desc())},
                                                  {DNNL_ARG_DST, memory(desc.dst_desc())}};
    const dnnl::matmul product(desc);
    const double n = static_cast<double>(size);
    return best_rate(seconds, 2 * n * n * n, [&] {
      product.execute(stream, args);
      stream.wait();
    });
  } catch (const dnnl::error&) {
    return 0;  // not implemented for this processor
  }
}

double triad_rate(double seconds, ops::Ops& backend, int64_t array_bytes) {
  const int64_t n = array_bytes / static_cast<int64_t>(sizeof(float));
  const ops::Buffer a_memory = backend.allocate(array_bytes);
  const ops::Buffer b_memory = backend.allocate(array_bytes);
  const ops::Buffer c_memory = backend.allocate(array_bytes);
  float* a = static_cast<float*>(a_memory.data());
  const float* b = static_cast<const float*>(b_memory.data());
  const float* c = static_cast<const float*>(c_memory.data());
  return best_rate(seconds, 3.0 * static_cast<double>(array_bytes), [&] {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) a[i] = b[i] + 3.0f * c[i];
  });
}

}  // namespace

double PeakRates::bf16_flops_per_s() const {
  return std::max(bf16_register_flops_per_s, bf16_gemm_flops_per_s);
}
double PeakRates::fp32_flops_per_s() const {
  return std::max(fp32_register_flops_per_s, fp32_gemm_flops_per_s);
}

PeakRates measure_peak(double seconds_each) {
  constexpr int64_t kGemmSize = 2048;           // three matrices of 16 MiB in FP32
  constexpr int64_t kSmallestArray = 64 << 20;  // where the size of L3 is not known
  const Machine machine = read_machine();
  PeakRates peak;
  peak.n_threads = omp_get_max_threads();
  peak.fp32_register_flops_per_s = register_rate(seconds_each, kFp32FlopsPerTurn, fp32_chain);
#if defined(__AVX512BF16__)
  peak.bf16_register_flops_per_s = register_rate(seconds_each, kBf16FlopsPerTurn, bf16_chain);
#endif
  peak.gemm_size = kGemmSize;
  peak.bf16_gemm_flops_per_s = gemm_rate(seconds_each, dnnl::memory::data_type::bf16, kGemmSize);
  peak.fp32_gemm_flops_per_s = gemm_rate(seconds_each, dnnl::memory::data_type::f32, kGemmSize);
  // Four times the cache, so that it holds little of what the next turn reads; a quarter of free
  // memory at most for the three together.
  peak.triad_array_bytes = std::max(4 * machine.l3_bytes, kSmallestArray);
  if (machine.available_bytes > 0) {
    peak.triad_array_bytes = std::min(peak.triad_array_bytes, machine.available_bytes / 12);
  }
  peak.triad_bytes_per_s = triad_rate(seconds_each, *ops::make_cpu_ops(), peak.triad_array_bytes);
  return peak;
}

}  // namespace qstep::trainer
