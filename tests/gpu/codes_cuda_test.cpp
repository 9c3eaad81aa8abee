// What a GPU's matrix units read, and what they make of it: codes and scales of cuda::quantize,
// byte for byte, and products of codes, where this GPU and its library have them, against FP64.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <tuple>

#include "ops/gemm/gemm_cuda.h"
#include "ops/gemm/gemm_plan_key.h"
#include "tests/gpu/on_gpu.h"
#include "tests/ops/code_side.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::cuda_check;
using ops::native_form;
using precision::AmaxScope;
using precision::QuantFormat;

class CodesOnGpu : public OnGpu {};

// Copies of a CodeSide in device memory.
struct OnDevice {
  explicit OnDevice(const CodeSide& x)
      : codes(x.codes),
        scales(x.scales),
        scale(x.side.scale),
        tile_scales(x.side.tile_scales),
        q(x.side.q) {
    q.values.data = nullptr;
    q.codes = codes.tensor();
    if (q.block_scales) q.block_scales = scales.tensor();
    if (q.scale) q.scale = scale.tensor();
    const bool per_row = q.spec.amax == AmaxScope::kRow;
    q.tile_scales = per_row ? tile_scales.tensor() : Tensor{};
  }
  // What is written later is written by the GPU.
  void poison() const {
    for (const Tensor& t : {codes.tensor(), scales.tensor(), scale.tensor()}) {
      cuda_check(cudaMemset(t.data, 0xFF, static_cast<size_t>(t.bytes())), "cudaMemset");
    }
    wait_for_default_stream();
  }
  DeviceCopy codes, scales, scale, tile_scales;
  ops::QuantizedTensor q;
};

std::vector<std::byte> bits_of_codes(const CodeSide& x) {
  std::vector<std::byte> bits = x.codes.bits();
  for (const Guarded* const more : {&x.scales, &x.side.scale}) {
    const std::vector<std::byte> its = more->bits();
    bits.insert(bits.end(), its.begin(), its.end());
  }
  return bits;
}

TEST_F(CodesOnGpu, AreThoseOfTheHost) {
  ops::CudaContext context;
  uint64_t seed = 1;
  for (const QuantSpec& spec : all_quant_specs()) {
    if (!native_form(spec)) continue;
    const int64_t u = std::max(multiple_of_k(spec), multiple_of_rows(spec));
    for (const Shape s : {Shape{150, 270}, Shape{1, 1}}) {
      const Shape shape = spec.hadamard == 0 && seed % 2 == 0
                              ? s
                              : Shape{u * (1 + s.rows / u), u * (1 + s.cols / u)};
      for (const Orientation orientation : {Orientation::kRowwise, Orientation::kColumnwise}) {
        const QuantInput in(kAllData[seed % std::size(kAllData)], shape,
                            seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed);
        CodeSide host(spec, orientation,
                      QuantInput(kAllData[seed % std::size(kAllData)], shape,
                                 seed % 3 == 0 ? Dtype::kF32 : Dtype::kBf16, seed));
        const std::vector<std::byte> expected = bits_of_codes(host);
        OnDevice device(host);
        device.poison();
        const DeviceCopy x(in.tensor), delayed(in.delayed_scale);
        ops::QuantCall call = in.call;
        call.delayed_scale = delayed.tensor();
        const bool row = orientation == Orientation::kRowwise;
        ops::cuda::quantize(row ? device.q : ops::QuantizedTensor{},
                            row ? ops::QuantizedTensor{} : device.q, x.tensor(), call, context);
        cuda_check(cudaStreamSynchronize(context.stream()), "quantize");
        const std::string what = describe(spec) + " on " + in.what;
        EXPECT_TRUE(device.codes.download() && device.scales.download() && device.scale.download())
            << what << ": written around";
        EXPECT_EQ(expected, bits_of_codes(host)) << what;
        ++seed;
      }
    }
    if (HasFailure()) return;
  }
}

// ---- products
// ------------------------------------------------------------------------------------

struct Pair {
  QuantSpec a;
  Orientation a_orientation;
  QuantSpec b;
  Orientation b_orientation;
  std::string what() const { return describe(a) + " x " + describe(b); }
};

std::vector<Pair> pairs() {
  constexpr Orientation kRow = Orientation::kRowwise, kColumn = Orientation::kColumnwise;
  const QuantSpec fp8 = default_spec(QuantFormat::kFp8E4m3);
  const QuantSpec e5m2 = default_spec(QuantFormat::kFp8E5m2);
  const QuantSpec mxfp8 = default_spec(QuantFormat::kMxfp8E4m3);
  const QuantSpec mxfp4 = default_spec(QuantFormat::kMxfp4);
  const QuantSpec weights = with_block(nvfp4(), {16, 16}), squares = with_block(fp8, {128, 128});
  QuantSpec rows = fp8, tiles = with_block(fp8, {1, 128});
  rows.amax = AmaxScope::kRow;
  return {{fp8, kRow, fp8, kRow},
          {e5m2, kRow, fp8, kColumn},
          {e5m2, kColumn, fp8, kColumn},
          {rows, kRow, rows, kRow},
          {tiles, kRow, squares, kRow},
          {tiles, kRow, squares, kColumn},
          {tiles, kColumn, tiles, kColumn},
          {mxfp8, kRow, mxfp8, kRow},
          {mxfp8, kColumn, mxfp8, kColumn},
          {mxfp4, kRow, mxfp4, kRow},
          {nvfp4(), kRow, weights, kRow},
          {nvfp4(), kRow, weights, kColumn},
          {nvfp4(), kColumn, nvfp4(), kColumn}};
}

// d = alpha a b^T (+ bias) (+ d) by codes alone, twice the same bits; empty where this GPU does not
// multiply them.
std::vector<double> product_of_codes(const CodeSide& a, const CodeSide& b, const Guarded& d,
                                     const Tensor& bias, Accumulate accumulate,
                                     const std::string& what) {
  ops::CudaContext context;
  ops::cuda::Gemm gemm(context);
  if (!gemm.multiplies_codes({.a = native_form(a.side.q.spec),
                              .b = native_form(b.side.q.spec),
                              .m = a.rows,
                              .n = b.rows,
                              .k = a.k,
                              .out = d.tensor().dtype})) {
    return {};
  }
  const OnDevice left(a), right(b);
  std::optional<DeviceCopy> on_bias;
  if (bias) on_bias.emplace(bias);
  std::vector<double> values[2];
  for (std::vector<double>& found : values) {
    Guarded result(d.tensor().dtype, a.rows, b.rows);
    result.assign(d.values());
    DeviceCopy out(result);
    gemm(out.tensor(), ops::operand(left.q), ops::operand(right.q), 1.0f, accumulate,
         bias ? on_bias->tensor() : Tensor{});
    cuda_check(cudaStreamSynchronize(context.stream()), "gemm");
    EXPECT_TRUE(out.download()) << what << ": written around";
    found = result.values();
  }
  EXPECT_EQ(values[0], values[1]) << what << ": second run";
  return values[0];
}

// An FP8 matrix unit adds 32 products at a time, each cut to 13 bits below the largest of them
// (DeepSeek-V3 technical report, 3.3.2): at most 32 * 2^-13 of that one, so 2^-8 of the sum of
// magnitudes, a bound for every format; the sums of those are FP32.
TEST_F(CodesOnGpu, ProductsAreThoseOfDecodedValues) {
  std::string decoded;
  uint64_t seed = 100;
  for (const Pair& p : pairs()) {
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{128, 256, 512}, std::array<int64_t, 3>{272, 144, 1056}}) {
      for (const Dtype out : {Dtype::kBf16, Dtype::kF32}) {
        const CodeSide a(p.a, p.a_orientation, m, k, seed++), b(p.b, p.b_orientation, n, k, seed++);
        Random random(seed);
        Guarded d(out, m, n), bias(Dtype::kBf16, 1, n);
        d.fill(random, -1, 1);
        bias.fill(random, -1, 1);
        const bool adds = out == Dtype::kF32;
        const auto found = product_of_codes(a, b, d, adds ? Tensor{} : bias.tensor(),
                                            adds ? Accumulate::kYes : Accumulate::kNo, p.what());
        if (found.empty()) {
          decoded = p.what();
          continue;
        }
        for (int64_t i = 0; i < m; i += 7) {
          for (int64_t j = 0; j < n; j += 5) {
            double sum = adds ? d.at(i, j) : bias.at(0, j), size = std::abs(sum);
            for (int64_t l = 0; l < k; ++l) {
              const double term = a.decoded(i, l) * b.decoded(j, l);
              sum += term;
              size += std::abs(term);
            }
            const double bound = 0x1p-8 * size + (adds ? 0 : kBf16Roundoff * std::abs(sum));
            ASSERT_NEAR(sum, found[static_cast<size_t>(i * n + j)], bound)
                << p.what() << " at " << i << ", " << j;
          }
        }
      }
    }
  }
  if (!decoded.empty()) fmt::print("not native on this GPU, among others: {}\n", decoded);
}

// Ones, zeros and minus ones: no bit is lost on the way to their sums, whatever adds them up, so
// that a code or scale in a wrong place shows. What is left are the FP32 factors' roundings.
TEST_F(CodesOnGpu, ProductsOfOnesAreCounts) {
  for (const Pair& p : pairs()) {
    constexpr int64_t m = 272, n = 400, k = 1184;
    Random random(7);
    const auto input = [&](Orientation orientation, int64_t rows, Values& ones) {
      for (int64_t i = 0; i < rows * k; ++i) {
        ones.push_back(static_cast<float>(random.integer(-1, 1)));
      }
      for (int64_t i = 0; i < rows * k; i += 8) ones[static_cast<size_t>(i)] = 1.0f;
      if (orientation == Orientation::kRowwise) return QuantInput(ones, {rows, k}, Dtype::kBf16);
      Values turned;
      for (int64_t l = 0; l < k; ++l) {
        for (int64_t r = 0; r < rows; ++r) turned.push_back(ones[static_cast<size_t>(r * k + l)]);
      }
      return QuantInput(turned, {k, rows}, Dtype::kBf16);
    };
    Values x, y;
    const CodeSide a(p.a, p.a_orientation, input(p.a_orientation, m, x));
    const CodeSide b(p.b, p.b_orientation, input(p.b_orientation, n, y));
    const auto found =
        product_of_codes(a, b, Guarded(Dtype::kF32, m, n).fill(0.0), {}, Accumulate::kNo, p.what());
    for (int64_t i = 0; i < m && !found.empty(); i += 3) {
      for (int64_t j = 0; j < n; j += 3) {
        double count = 0;
        for (int64_t l = 0; l < k; ++l) {
          count +=
              double{x[static_cast<size_t>(i * k + l)]} * double{y[static_cast<size_t>(j * k + l)]};
        }
        ASSERT_NEAR(count, found[static_cast<size_t>(i * n + j)], k * 0x1p-20)
            << p.what() << " at " << i << ", " << j;
      }
    }
  }
}

}  // namespace
}  // namespace qstep::test
