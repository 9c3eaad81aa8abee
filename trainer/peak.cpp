#include "trainer/peak.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "ops/cpu_library.h"
#include "ops/ops.h"
#include "ops/peak_kernels.h"
#include "trainer/machine.h"

namespace qstep::trainer {

namespace {

using Clock = std::chrono::steady_clock;

// Per figure. Short repetitions: other work on the machine leaves some of them alone.
constexpr int kRepetitions = 100;

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

// Runs the chain on every thread. n_turns is found on one: a pool that waits for a busy processor
// tells nothing about the processor.
double register_rate(double seconds, const ops::RegisterChain& chain) {
  if (chain.run == nullptr) return 0;
  volatile float sink = 0;
  int64_t n_turns = 1000;
  for (double took = 0; took < seconds / kRepetitions && n_turns < (int64_t{1} << 40);) {
    n_turns *= 2;
    took = seconds;
    for (int i = 0; i < 5; ++i) {
      const Clock::time_point begin = Clock::now();
      sink = chain.run(n_turns);
      took = std::min(took, seconds_since(begin));
    }
  }
  const double flops = chain.flops_per_turn * static_cast<double>(n_turns) * omp_get_max_threads();
  return best_rate(seconds, flops, [&] {
    float sum = 0;
#pragma omp parallel reduction(+ : sum)
    sum += chain.run(n_turns);
    sink = sum;
  });
}

// The backend's product d = a b^T of row-major matrices. Zeros: the time of a product does not
// depend on values (denormals apart).
double gemm_rate(double seconds, ops::Ops& backend, ops::Dtype dtype, int64_t size) {
  if (ops::gemm_kernel(dtype).empty()) return 0;  // this processor has no such product
  const int64_t bytes = size * size * ops::size_bytes(dtype);
  const ops::Buffer a_memory = backend.allocate(bytes);
  const ops::Buffer b_memory = backend.allocate(bytes);
  const ops::Buffer d_memory = backend.allocate(bytes);
  const auto square = [&](const ops::Buffer& memory) {
    return ops::matrix(memory.data(), dtype, size, size);
  };
  const ops::Operand a = ops::rowwise(square(a_memory)), b = ops::rowwise(square(b_memory));
  const double n = static_cast<double>(size);
  return best_rate(seconds, 2 * n * n * n,
                   [&] { backend.gemm(square(d_memory), a, b, 1.0f, ops::Accumulate::kNo); });
}

double triad_rate(double seconds, ops::Ops& backend, int64_t array_bytes) {
  const int64_t n = array_bytes / static_cast<int64_t>(sizeof(float));
  const ops::Buffer a_memory = backend.allocate(array_bytes);
  const ops::Buffer b_memory = backend.allocate(array_bytes);
  const ops::Buffer c_memory = backend.allocate(array_bytes);
  float* a = static_cast<float*>(a_memory.data());
  const float* b = static_cast<const float*>(b_memory.data());
  const float* c = static_cast<const float*>(c_memory.data());
  return best_rate(seconds, 3.0 * static_cast<double>(array_bytes),
                   [&] { ops::triad(a, b, c, 3.0f, n); });
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
  peak.fp32_register_flops_per_s = register_rate(seconds_each, ops::fp32_chain());
  peak.bf16_register_flops_per_s = register_rate(seconds_each, ops::bf16_chain());
  peak.gemm_size = kGemmSize;
  const std::unique_ptr<ops::Ops> backend = ops::make_cpu_ops();
  peak.bf16_gemm_flops_per_s = gemm_rate(seconds_each, *backend, ops::Dtype::kBf16, kGemmSize);
  peak.fp32_gemm_flops_per_s = gemm_rate(seconds_each, *backend, ops::Dtype::kF32, kGemmSize);
  // Four times the cache, so that it holds little of what the next turn reads; a quarter of free
  // memory at most for the three together.
  peak.triad_array_bytes = std::max(4 * machine.l3_bytes, kSmallestArray);
  if (machine.available_bytes > 0) {
    peak.triad_array_bytes = std::min(peak.triad_array_bytes, machine.available_bytes / 12);
  }
  peak.triad_bytes_per_s = triad_rate(seconds_each, *backend, peak.triad_array_bytes);
  return peak;
}

}  // namespace qstep::trainer
