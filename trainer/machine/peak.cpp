#include "trainer/machine/peak.h"

#include <omp.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "ops/cpu_library.h"
#include "ops/ops.h"
#include "ops/peak_kernels.h"
#include "trainer/config/model_config.h"
#include "trainer/machine/machine.h"

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

// Of the calling thread: what it waits for a processor that others keep busy is not in it.
double thread_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The rates of all threads that run the chain at once, added up, each against its own CPU time: a
// pool that waits for a busy processor tells nothing about the processor.
double register_rate(double seconds, const ops::RegisterChain& chain) {
  if (chain.run == nullptr) return 0;
  [[maybe_unused]] volatile float sink = 0;  // so that the compiler cannot leave the chain out
  int64_t n_turns = 1000;
  for (double took = 0; took < seconds / kRepetitions && n_turns < (int64_t{1} << 40);) {
    n_turns *= 2;
    took = seconds;
    for (int i = 0; i < 5; ++i) {
      const double begin = thread_cpu_seconds();
      sink = chain.run(n_turns);
      took = std::min(took, thread_cpu_seconds() - begin);
    }
  }
  const double flops = chain.flops_per_turn * static_cast<double>(n_turns);
  double best = 0;
  const Clock::time_point start = Clock::now();
  for (int turns = 0; turns < 3 || seconds_since(start) < seconds; ++turns) {
    float sum = 0;
    double rate = 0;
#pragma omp parallel reduction(+ : sum, rate)
    {
      const double begin = thread_cpu_seconds();
      sum += chain.run(n_turns);
      rate += flops / (thread_cpu_seconds() - begin);
    }
    sink = sum;
    best = std::max(best, rate);
  }
  return best;
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
  return best_rate(seconds, gemm_flops(size, size, size),
                   [&] { backend.gemm(square(d_memory), a, b, 1.0f, ops::Accumulate::kNo); });
}

// Of one product that takes at most half of `seconds` at this rate, so that several fit.
int64_t gemm_size(double seconds, double flops_per_s) {
  int64_t size = 2048;
  while (flops_per_s > 0 && size > 256 &&
         gemm_flops(size, size, size) > 0.5 * seconds * flops_per_s)
    size /= 2;
  return size;
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

PeakRates best_of(const PeakRates& a, const PeakRates& b) {
  PeakRates best = a;
  const auto larger = [&](double PeakRates::*figure) {
    best.*figure = std::max(a.*figure, b.*figure);
  };
  larger(&PeakRates::bf16_register_flops_per_s);
  larger(&PeakRates::fp32_register_flops_per_s);
  larger(&PeakRates::bf16_gemm_flops_per_s);
  larger(&PeakRates::fp32_gemm_flops_per_s);
  larger(&PeakRates::triad_bytes_per_s);
  best.gemm_size = std::max(a.gemm_size, b.gemm_size);
  best.triad_array_bytes = std::max(a.triad_array_bytes, b.triad_array_bytes);
  return best;
}

namespace {

// array_caches: size of one of the triad's arrays, in L3 caches. processes: that may measure on
// this machine at the same time, and share its cache and its free memory.
PeakRates measure(double seconds_each, int64_t array_caches, int64_t processes) {
  constexpr int64_t kSmallestArray = 64 << 20;  // where the size of L3 is not known
  const Machine machine = read_machine();
  PeakRates peak;
  peak.n_threads = omp_get_max_threads();
  peak.fp32_register_flops_per_s = register_rate(seconds_each, ops::fp32_chain());
  peak.bf16_register_flops_per_s = register_rate(seconds_each, ops::bf16_chain());
  peak.gemm_size = gemm_size(seconds_each, peak.fp32_register_flops_per_s);
  const std::unique_ptr<ops::Ops> backend = ops::make_cpu_ops();
  peak.bf16_gemm_flops_per_s = gemm_rate(seconds_each, *backend, ops::Dtype::kBf16, peak.gemm_size);
  peak.fp32_gemm_flops_per_s = gemm_rate(seconds_each, *backend, ops::Dtype::kF32, peak.gemm_size);
  // The three together several times the cache, so that it holds little of what the next turn
  // reads; a quarter of free memory at most.
  peak.triad_array_bytes = std::max(array_caches * machine.l3_bytes / processes, kSmallestArray);
  if (machine.available_bytes > 0) {
    peak.triad_array_bytes =
        std::min(peak.triad_array_bytes, machine.available_bytes / (12 * processes));
  }
  peak.triad_bytes_per_s = triad_rate(seconds_each, *backend, peak.triad_array_bytes);
  return peak;
}

}  // namespace

PeakRates measure_peak(double seconds_each) { return measure(seconds_each, 4, 1); }

PeakRates measure_peak_briefly() {
  constexpr double kSecondsEach = 0.05;
  // No more ranks of so many threads than the machine has cores for.
  const int64_t processes = std::max<int64_t>(1, read_machine().cores / omp_get_max_threads());
  return measure(kSecondsEach, 1, processes);
}

}  // namespace qstep::trainer
