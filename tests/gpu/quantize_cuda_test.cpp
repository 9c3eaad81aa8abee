// cuda::quantize against cpu::quantize, bit for bit: every spec, shapes of every size class; and
// the counts for a ledger.
#include <array>
#include <cmath>
#include <cstring>

#include "tests/gpu/on_gpu.h"
#include "tests/ops/quantize_host_launch.h"
#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using ops::cuda_check;

class QuantizeOnGpu : public OnGpu {};

// One orientation in device memory.
struct SideOnGpu {
  explicit SideOnGpu(const QuantSide& side)
      : values(side.values), scale(side.scale), tile_scales(side.tile_scales), q(side.q) {
    q.values = values.tensor();
    if (q.scale) q.scale = scale.tensor();
    if (q.tile_scales) q.tile_scales = tile_scales.tensor();
  }
  void download() {
    EXPECT_TRUE(values.download()) << "values are written around";
    EXPECT_TRUE(scale.download()) << "the scale is written around";
    EXPECT_TRUE(tile_scales.download()) << "tile scales are written around";
  }
  DeviceCopy values, scale, tile_scales;
  ops::QuantizedTensor q;
};

// What a call leaves: both orientations, the raised amax and the flag, bit for bit; the counts.
struct Found {
  std::vector<std::byte> bits;
  std::array<ops::QuantStats, 2> stats;
};
std::vector<std::byte> bits(const QuantSide& row, const QuantSide& column, const Guarded& amax,
                            const Guarded& flag) {
  return bits_of(row.values, row.scale, row.tile_scales, column.values, column.scale,
                 column.tile_scales, amax, flag);
}

Found found_on_gpu(const QuantSpec& row_spec, const QuantSpec& column_spec, const QuantInput& in,
                   bool counted, ops::CudaContext& context) {
  const QuantSide row = in.side(row_spec, Orientation::kRowwise);
  const QuantSide column = in.side(column_spec, Orientation::kColumnwise);
  Guarded amax(Dtype::kF32, 1, 1), flag(Dtype::kI32, 1, 1);
  amax.fill(0.125);
  flag.set(0, 0, 0);
  SideOnGpu gpu_row(row), gpu_column(column);
  const DeviceCopy x(in.tensor), delayed(in.delayed_scale);
  DeviceCopy gpu_amax(amax), gpu_flag(flag);
  Found found;
  ops::QuantCall call = in.call;
  call.delayed_scale = delayed.tensor();
  call.delayed_amax = gpu_amax.tensor();
  call.non_finite = gpu_flag.tensor();
  call.row_stats = counted ? &found.stats[0] : nullptr;
  call.column_stats = counted ? &found.stats[1] : nullptr;
  poison_scratch(context);
  ops::cuda::quantize(gpu_row.q, gpu_column.q, x.tensor(), call, context);
  cuda_check(cudaStreamSynchronize(context.stream()), "cudaStreamSynchronize");
  gpu_row.download();
  gpu_column.download();
  EXPECT_TRUE(gpu_amax.download() && gpu_flag.download()) << "amax or flag are written around";
  found.bits = bits(row, column, amax, flag);
  return found;
}

// Bits of the CPU's quantizers; counts of the kernels, run on the host: sums in the same order.
Found expected_on_host(const QuantSpec& row_spec, const QuantSpec& column_spec,
                       const QuantInput& in, bool counted) {
  const auto run = [&](const auto& quantize, bool counts) {
    const QuantSide row = in.side(row_spec, Orientation::kRowwise);
    const QuantSide column = in.side(column_spec, Orientation::kColumnwise);
    Guarded amax(Dtype::kF32, 1, 1), flag(Dtype::kI32, 1, 1);
    amax.fill(0.125);
    flag.set(0, 0, 0);
    Found found;
    ops::QuantCall call = in.call;
    call.delayed_amax = amax;
    call.non_finite = flag;
    call.row_stats = counts ? &found.stats[0] : nullptr;
    call.column_stats = counts ? &found.stats[1] : nullptr;
    quantize(row.q, column.q, call);
    found.bits = bits(row, column, amax, flag);
    return found;
  };
  ops::Workspace workspace;
  Found expected = run(
      [&](const auto& row, const auto& column, const ops::QuantCall& call) {
        ops::cpu::quantize(row, column, in.tensor, call, workspace);
      },
      false);
  if (!counted) return expected;
  expected.stats =
      run(
          [&](const auto& row, const auto& column, const ops::QuantCall& call) {
            ops::device::quantize_with(HostQuantizeLaunch(), row, column, in.tensor, call);
          },
          true)
          .stats;
  return expected;
}

void expect_same_counts(const ops::QuantStats& expected, const ops::QuantStats& found,
                        const std::string& what) {
  constexpr size_t kCounts = sizeof(ops::QuantStats) / sizeof(double);
  double a[kCounts], b[kCounts];
  std::memcpy(a, &expected, sizeof a);
  std::memcpy(b, &found, sizeof b);
  for (size_t i = 0; i < kCounts; ++i) {
    EXPECT_TRUE(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))
        << what << ": count " << i << ", " << a[i] << " and " << b[i];
  }
}

void expect_same(const QuantSpec& row_spec, const QuantSpec& column_spec, const QuantInput& in,
                 bool counted, ops::CudaContext& context) {
  const std::string what = describe(row_spec) + " / " + describe(column_spec) + " on " + in.what;
  const Found expected = expected_on_host(row_spec, column_spec, in, counted);
  for (int run = 0; run < 2; ++run) {
    const Found found = found_on_gpu(row_spec, column_spec, in, counted, context);
    EXPECT_EQ(expected.bits, found.bits) << what << ", run " << run;
    for (size_t side = 0; side < 2; ++side) {
      expect_same_counts(expected.stats[side], found.stats[side], what);
    }
  }
}

TEST_F(QuantizeOnGpu, EverySpec) {
  ops::CudaContext context;
  uint64_t seed = 1;
  for (const QuantSpec& spec : all_quant_specs()) {
    const int64_t u = std::max(multiple_of_k(spec), multiple_of_rows(spec));
    for (const Shape base : {Shape{1, 1}, Shape{150, 270}}) {
      const QuantInput in(kAllData[seed % std::size(kAllData)],
                          {u * (1 + base.rows / u), u * (1 + base.cols / u)},
                          seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed, seed % 2 * 3);
      expect_same(spec, spec, in, seed % 5 == 0, context);
      ++seed;
    }
    if (spec.hadamard == 0) {
      const QuantInput in(kAllData[seed % std::size(kAllData)], {37, 53}, Dtype::kBf16, seed);
      expect_same(spec, spec, in, seed % 5 == 0, context);
    }
    if (HasFailure()) return;
  }
}

// With the GPU's own stochastic rounding: the same scales, every number by one of its neighbours,
// the same bits when made again, and other ones in another step whose mean is the number.
TEST_F(QuantizeOnGpu, RoundedByTheHardware) {
  std::string why;
  const auto gpu = ops::make_cuda_ops(why);
  ASSERT_NE(gpu, nullptr) << why;
  if (!gpu->has_hardware_rounder()) {
    GTEST_SKIP() << "needs compute capability 10.0 or 10.3, in code for sm_100a or sm_103a";
  }
  ops::CudaContext context;
  QuantSpec turned = nvfp4();
  turned.rounding = precision::Rounding::kStochastic;
  QuantSpec row = turned;
  turned.hadamard = 16;
  QuantInput in(Data::kNarrow, {160, 272}, Dtype::kBf16, 70);
  const auto made = [&](precision::StochasticRounder rounder, uint32_t step) {
    in.call.random.rounder = rounder;
    in.call.random.step = step;
    QuantSide side = in.side(row, Orientation::kRowwise);
    const QuantSide column = in.side(turned, Orientation::kColumnwise);
    SideOnGpu gpu_row(side), gpu_column(column);
    const DeviceCopy x(in.tensor);
    ops::QuantCall call = in.call;
    call.delayed_scale = call.delayed_amax = call.non_finite = {};
    ops::cuda::quantize(gpu_row.q, gpu_column.q, x.tensor(), call, context);
    cuda_check(cudaStreamSynchronize(context.stream()), "cudaStreamSynchronize");
    gpu_row.download();
    gpu_column.download();
    return side;
  };
  const reference::Quantized expected = in.expected(row, Orientation::kRowwise);
  const QuantSide first = made(precision::StochasticRounder::kHardware, 1);
  EXPECT_EQ(first.bits(), made(precision::StochasticRounder::kHardware, 1).bits());
  EXPECT_EQ(bits_of(first.scale), bits_of(made(precision::StochasticRounder::kPortable, 1).scale));
  constexpr int kSteps = 64;
  double error = 0, variance = 0;
  for (uint32_t step = 1; step <= kSteps; ++step) {
    const QuantSide found = made(precision::StochasticRounder::kHardware, step);
    for (int64_t r = 0; r < expected.rows; ++r) {
      for (int64_t k = 0; k < expected.k; ++k) {
        const float s = expected.block_of(r, k).decoded, x = expected.scaled[expected.index(r, k)];
        if (s == 0 || std::abs(x) > 6.0f) continue;
        const float q = found.value(r, k) / s;
        const float a = std::abs(x), grid = a >= 4 ? 2.0f : a >= 2 ? 1.0f : 0.5f;
        ASSERT_LT(std::abs(q - x), grid) << x;
        // Each is low in magnitude by at most grid / 256 (numerics 4.2).
        error += static_cast<double>(q - x);
        variance += static_cast<double>(grid * grid) / 4;
      }
    }
  }
  const auto n = static_cast<double>(kSteps * expected.rows * expected.k);
  EXPECT_LE(std::abs(error), 5 * std::sqrt(variance) + n * 2.0 / 256);
}

// What training asks for, at a size of many waves of thread blocks.
TEST_F(QuantizeOnGpu, LargePairs) {
  if (small_sizes_only()) GTEST_SKIP() << "runs where QSTEP_SMALL_SIZES is not set";
  ops::CudaContext context;
  QuantSpec turned = nvfp4();
  turned.hadamard = 16;
  QuantSpec gradient = nvfp4();
  gradient.rounding = precision::Rounding::kStochastic;
  QuantSpec turned_gradient = gradient;
  turned_gradient.hadamard = 16;
  QuantSpec adaptive = with_block(nvfp4(), {16, 16});
  adaptive.four_over_six = precision::FourOverSix::kMae;
  const QuantSpec fp8 = default_spec(precision::QuantFormat::kFp8E4m3);
  const QuantSpec mxfp8 = default_spec(precision::QuantFormat::kMxfp8E4m3);
  const std::pair<QuantSpec, QuantSpec> pairs[] = {{nvfp4(), turned},
                                                   {gradient, turned_gradient},
                                                   {adaptive, adaptive},
                                                   {fp8, fp8},
                                                   {mxfp8, mxfp8}};
  uint64_t seed = 50;
  for (const auto& [row, column] : pairs) {
    const QuantInput in(Data::kNarrow, {2048, 1536}, Dtype::kBf16, seed++);
    expect_same(row, column, in, false, context);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace qstep::test
