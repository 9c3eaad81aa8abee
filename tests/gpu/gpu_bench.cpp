// qstep_bench_gpu: kernels against a copy in device memory that is measured first, products in
// TFLOP/s. One line each; Google Benchmark's options (--benchmark_filter=gemm,
// --benchmark_out=FILE) work. No test asserts a time.
#include "tests/gpu/gpu_bench.h"

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "ops/cuda/cuda_context.h"
#include "ops/parallel_for.h"
#include "precision/philox.h"
#include "trainer/timing/timed_ops.h"

namespace qstep::bench {

using ops::cuda_check;

Tensor Tensors::random(Dtype dtype, int64_t rows, int64_t cols) {
  fills_.push_back({zeros(dtype, rows, cols)});
  return fills_.back().tensor;
}
Tensor Tensors::tokens(int64_t n, int64_t vocab) {
  fills_.push_back({zeros(Dtype::kI32, 1, n), vocab});
  return fills_.back().tensor;
}

void Tensors::fill() const {
  constexpr int64_t kPeriod = (int64_t{1} << 23) + 9;  // longer than rows, so that they differ
  for (const Fill& f : fills_) {
    const int64_t element = ops::size_bytes(f.tensor.dtype);
    const int64_t n = std::min(f.tensor.size(), kPeriod);
    std::vector<std::byte> host(static_cast<size_t>(n * element));
    ops::parallel_for(n, [&](int64_t i) {
      const uint32_t bits = precision::philox4x32(1, {{static_cast<uint32_t>(i), 0, 0, 0}}).w[0];
      const float value = static_cast<float>(bits) * 0x1p-31f - 1.0f;
      std::byte* const to = host.data() + i * element;
      if (f.vocab > 0) {
        *reinterpret_cast<int32_t*>(to) =
            static_cast<int32_t>(bits % static_cast<uint32_t>(f.vocab));
      } else if (f.tensor.dtype == Dtype::kBf16) {
        *reinterpret_cast<ops::Bf16*>(to) = precision::to_bf16(value);
      } else {
        *reinterpret_cast<float*>(to) = value;
      }
    });
    for (int64_t first = 0; first < f.tensor.size(); first += n) {
      ops_.upload(ops::matrix(static_cast<std::byte*>(f.tensor.data) + first * element,
                              f.tensor.dtype, 1, std::min(n, f.tensor.size() - first)),
                  host.data());
    }
  }
}

namespace {

struct Event {
  Event() { cuda_check(cudaEventCreate(&event), "cudaEventCreate"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { (void)cudaEventDestroy(event); }
  cudaEvent_t event = nullptr;
};

// Of n calls behind each other on the stream, in seconds.
double seconds_of(ops::Ops& ops, int64_t n, const std::function<void(ops::Ops&)>& call) {
  const auto stream = static_cast<cudaStream_t>(ops.stream());
  const Event begin, end;
  cuda_check(cudaEventRecord(begin.event, stream), "cudaEventRecord");
  for (int64_t i = 0; i < n; ++i) call(ops);
  cuda_check(cudaEventRecord(end.event, stream), "cudaEventRecord");
  cuda_check(cudaEventSynchronize(end.event), "cudaEventSynchronize");
  float ms = 0;
  cuda_check(cudaEventElapsedTime(&ms, begin.event, end.event), "cudaEventElapsedTime");
  return 1e-3 * static_cast<double>(ms);
}

// Of one, in the middle of as many as fill some time: its launch and the clock of the GPU's events
// vanish then.
double seconds_each(ops::Ops& ops, const std::function<void(ops::Ops&)>& call) {
  constexpr double kSeconds = 0.05;
  constexpr int64_t kMost = 200;
  seconds_of(ops, 2, call);  // plans are made, memory is taken
  const double one = seconds_of(ops, 1, call);
  const auto n = std::clamp(static_cast<int64_t>(kSeconds / one), int64_t{1}, kMost);
  return seconds_of(ops, n, call) / static_cast<double>(n);
}

// Bytes read and written in a second.
double measure_copy(ops::Ops& ops) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  const ops::Buffer from = ops.allocate(kBytes), to = ops.allocate(kBytes);
  const double seconds = seconds_each(ops, [&](ops::Ops& o) {
    cuda_check(cudaMemcpyAsync(to.data(), from.data(), static_cast<size_t>(kBytes),
                               cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(o.stream())),
               "cudaMemcpy");
  });
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

trainer::OpWork work_of(ops::Ops& ops, const std::function<void(ops::Ops&)>& call) {
  trainer::Timeline timeline(trainer::TimingLevel::kOps);
  trainer::TimedOps timed(ops, timeline);
  trainer::WorkLog log;
  timed.log_work(&log);
  timeline.start();
  call(timed);
  timeline.stop();
  trainer::OpWork work;
  for (const trainer::LoggedWork& logged : log) work = work + logged.work;
  return work;
}

void run(benchmark::State& state, ops::Ops& ops, const GpuCase& c) {
  ops::Arena measure;
  Tensors measured(ops, measure);
  if (!c.make(measured).timed) {
    fmt::print("  {:<46} not on this GPU\n", c.name);
    return state.SkipWithError("not on this GPU");
  }
  const ops::Buffer memory = ops.allocate(measure.peak_bytes());
  ops::Arena place(memory);
  Tensors placed(ops, place);
  const GpuCalls calls = c.make(placed);
  placed.fill();
  if (calls.before) calls.before(ops);
  const trainer::OpWork work = work_of(ops, calls.timed);
  for (auto _ : state) state.SetIterationTime(seconds_each(ops, calls.timed));
  state.counters["bytes"] = work.bytes + c.more_bytes;
  state.counters["flops"] = work.flops;
}

// A line each.
class Lines final : public benchmark::BenchmarkReporter {
 public:
  explicit Lines(double copy_bytes_per_s) : copy_(copy_bytes_per_s) {}
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& r : runs) {
      if (r.counters.count("flops") == 0) continue;  // skipped, which was said
      const double seconds = r.real_accumulated_time / static_cast<double>(r.iterations);
      const double flops = r.counters.at("flops").value, bytes = r.counters.at("bytes").value;
      std::string rate = fmt::format("{:7.0f} GB/s {:6.1f} % of a copy", 1e-9 * bytes / seconds,
                                     100 * bytes / seconds / copy_);
      if (flops > 0) rate = fmt::format("{:7.1f} TFLOP/s", 1e-12 * flops / seconds);
      fmt::print("  {:<46} {:>10.1f} us {}\n", r.run_name.function_name, 1e6 * seconds, rate);
      std::fflush(stdout);
    }
  }

 private:
  double copy_;
};

int run_all(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  std::string why;
  const std::unique_ptr<ops::Ops> gpu = ops::make_cuda_ops(why);
  if (gpu == nullptr) {
    fmt::print(stderr, "qstep_bench_gpu: nothing was measured: {}\n", why);
    return static_cast<int>(ops::ExitCode::kGpu);
  }
  std::vector<GpuCase> cases = memory_cases();
  for (const auto& more : {quantizer_cases(), product_cases()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  bool failed = false;
  for (const GpuCase& c : cases) {
    benchmark::RegisterBenchmark(c.name.c_str(),
                                 [&](benchmark::State& state) {
                                   try {
                                     run(state, *gpu, c);
                                   } catch (const ops::Error& error) {
                                     failed = true;
                                     fmt::print("  {:<46} FAILED: {}\n", c.name, error.what());
                                     state.SkipWithError(error.what());
                                   }
                                 })
        ->UseManualTime()
        ->Iterations(1);
  }
  const double copy = measure_copy(*gpu);
  fmt::print("kernels   {}: a copy moves {:.0f} GB/s, read and written\n", gpu->name(),
             1e-9 * copy);
  Lines lines(copy);
  benchmark::RunSpecifiedBenchmarks(&lines);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace qstep::bench

int main(int argc, char** argv) {
  try {
    return qstep::bench::run_all(argc, argv);
  } catch (const qstep::ops::Error& error) {
    fmt::print(stderr, "qstep_bench_gpu: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
