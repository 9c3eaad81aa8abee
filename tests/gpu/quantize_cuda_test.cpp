// cuda::quantize against cpu::quantize, bit for bit: every spec, shapes of every size class.
#include "ops/quantize.h"
#include "tests/gpu/on_gpu.h"
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

std::vector<std::byte> bits_of_sides(const QuantSide& row, const QuantSide& column) {
  std::vector<std::byte> bits = row.bits();
  const std::vector<std::byte> more = column.bits();
  bits.insert(bits.end(), more.begin(), more.end());
  return bits;
}

std::vector<std::byte> found_on_gpu(const QuantSpec& row_spec, const QuantSpec& column_spec,
                                    const QuantInput& in, ops::CudaContext& context) {
  const QuantSide row = in.side(row_spec, Orientation::kRowwise);
  const QuantSide column = in.side(column_spec, Orientation::kColumnwise);
  SideOnGpu gpu_row(row), gpu_column(column);
  const DeviceCopy x(in.tensor), delayed(in.delayed_scale);
  ops::QuantCall call = in.call;
  call.delayed_scale = delayed.tensor();
  ops::cuda::quantize(gpu_row.q, gpu_column.q, x.tensor(), call, context);
  cuda_check(cudaStreamSynchronize(context.stream()), "cudaStreamSynchronize");
  gpu_row.download();
  gpu_column.download();
  return bits_of_sides(row, column);
}

std::vector<std::byte> expected_on_host(const QuantSpec& row_spec, const QuantSpec& column_spec,
                                        const QuantInput& in) {
  const QuantSide row = in.side(row_spec, Orientation::kRowwise);
  const QuantSide column = in.side(column_spec, Orientation::kColumnwise);
  Quantizer()(row.q, column.q, in);
  return bits_of_sides(row, column);
}

void expect_same(const QuantSpec& row_spec, const QuantSpec& column_spec, const QuantInput& in,
                 ops::CudaContext& context) {
  const std::string what = describe(row_spec) + " / " + describe(column_spec) + " on " + in.what;
  const auto found = found_on_gpu(row_spec, column_spec, in, context);
  EXPECT_EQ(expected_on_host(row_spec, column_spec, in), found) << what;
  EXPECT_EQ(found, found_on_gpu(row_spec, column_spec, in, context)) << what << ", again";
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
      expect_same(spec, spec, in, context);
      ++seed;
    }
    if (spec.hadamard == 0) {
      const QuantInput in(kAllData[seed % std::size(kAllData)], {37, 53}, Dtype::kBf16, seed);
      expect_same(spec, spec, in, context);
    }
    if (HasFailure()) return;
  }
}

// What training asks for, at a size of many waves of thread blocks.
TEST_F(QuantizeOnGpu, LargePairs) {
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
    expect_same(row, column, in, context);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace qstep::test
