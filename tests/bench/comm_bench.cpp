// Bandwidth of the collectives of a training step, for people:
//
//   mpirun -n 2 build/cpu/tests/bench/qstep_bench_comm
//
// Rates count what one rank sends. Rank 0 prints.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "parallel/shards.h"
#include "parallel/world.h"

namespace qstep::parallel {
namespace {

Comm* the_world = nullptr;

// n elements of T, in even parts.
template <class T>
struct Data {
  explicit Data(int64_t n)
      : values(static_cast<size_t>(n)), bounds(even_bounds(n, the_world->size())) {}
  ops::Tensor tensor() { return ops::view(std::span(values)); }

  std::vector<T> values;
  std::vector<int64_t> bounds;
};

// Runs `collective` again and again; all ranks as often, as their number of iterations is fixed.
template <class F>
void run(benchmark::State& state, int64_t bytes, F&& collective) {
  Comm& comm = *the_world;
  comm.wait(comm.barrier());
  for (auto _ : state) comm.wait(collective(comm));
  state.SetBytesProcessed(state.iterations() * bytes * (comm.size() - 1) / comm.size());
}

void bm_reduce_scatter_fp32(benchmark::State& state) {
  Data<float> x(state.range(0) / 4);
  run(state, state.range(0), [&](Comm& c) { return c.reduce_scatter(x.tensor(), x.bounds); });
}
void bm_all_gather_bf16(benchmark::State& state) {
  Data<ops::Bf16> x(state.range(0) / 2);
  run(state, state.range(0), [&](Comm& c) { return c.all_gather(x.tensor(), x.bounds); });
}
void bm_all_reduce_of_one(benchmark::State& state) {
  Data<float> x(1);
  run(state, 4, [&](Comm& c) { return c.all_reduce(x.tensor(), Reduce::kSum); });
}

// Arguments are the bytes of the whole tensor.
void units(benchmark::internal::Benchmark* b) { b->UseRealTime()->Unit(benchmark::kMicrosecond); }
BENCHMARK(bm_all_reduce_of_one)->Apply(units)->Iterations(2000);
BENCHMARK(bm_reduce_scatter_fp32)->Apply(units)->Arg(64 << 10)->Iterations(2000);
BENCHMARK(bm_reduce_scatter_fp32)->Apply(units)->Arg(4 << 20)->Iterations(200);
BENCHMARK(bm_reduce_scatter_fp32)->Apply(units)->Arg(256 << 20)->Iterations(5);
BENCHMARK(bm_all_gather_bf16)->Apply(units)->Arg(64 << 10)->Iterations(2000);
BENCHMARK(bm_all_gather_bf16)->Apply(units)->Arg(4 << 20)->Iterations(200);
BENCHMARK(bm_all_gather_bf16)->Apply(units)->Arg(128 << 20)->Iterations(5);

// Prints nothing.
class Silent : public benchmark::BenchmarkReporter {
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

int run_all(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const std::unique_ptr<Comm> comm = make_world(find_launch());
  the_world = comm.get();
  if (comm->rank() == 0) {
    benchmark::RunSpecifiedBenchmarks();
  } else {
    Silent silent;
    benchmark::RunSpecifiedBenchmarks(&silent);
  }
  return 0;
}

}  // namespace
}  // namespace qstep::parallel

int main(int argc, char** argv) { return qstep::parallel::run_all(argc, argv); }
