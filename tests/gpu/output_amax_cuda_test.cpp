// The amax that the kernels of norms and activations leave: that of the output as the GPU stored
// it.
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/layernorm.h"
#include "ops/rmsnorm.h"
#include "tests/gpu/on_gpu.h"

namespace qstep::test {
namespace {

using ops::Activation;
using ops::CudaContext;

constexpr float kEps = 1e-5f;

class OutputAmaxOnGpu : public OnGpu {};

void expect_amax(Dtype dtype, int64_t rows, int64_t cols, const std::string& what,
                 const std::function<void(const Tensor&, const Tensor&, CudaContext&)>& f) {
  CudaContext context;
  Guarded output(dtype, rows, cols, 8), amax(Dtype::kI32, 1, 1);
  DeviceCopy gpu_output(output), gpu_amax(amax);
  f(gpu_output.tensor(), gpu_amax.tensor(), context);
  ops::cuda_check(cudaStreamSynchronize(context.stream()), "cudaStreamSynchronize");
  EXPECT_TRUE(gpu_output.download() && gpu_amax.download()) << what << ": written around";
  uint32_t largest = 0;
  for (const double value : output.values()) {
    largest = std::max(largest, precision::bits(static_cast<float>(value)) & 0x7FFFFFFFu);
  }
  EXPECT_EQ(largest, static_cast<uint32_t>(amax.at(0, 0))) << what;
}

TEST_F(OutputAmaxOnGpu, OfNormsAndActivations) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const auto& [rows, cols] :
         {std::pair<int64_t, int64_t>{1, 1}, {37, 200}, {5, 1003}, {300, 2048}}) {
      if (small_sizes_only() && rows * cols > 20'000) continue;
      Random random(9);
      Guarded x(dtype, rows, cols, 8), delta(dtype, rows, cols, 8), wide(dtype, rows, 2 * cols, 8);
      Guarded w(dtype, 1, cols), b(dtype, 1, cols), sum(dtype, rows, cols, 8);
      Guarded rstd(Dtype::kF32, 1, rows), mean(Dtype::kF32, 1, rows);
      for (Guarded* const t : {&x, &delta, &wide, &w, &b}) t->fill(random, -3, 3);
      const DeviceCopy gx(x), gdelta(delta), gwide(wide), gw(w), gb(b), gsum(sum), grstd(rstd),
          gmean(mean);
      const auto check = [&](const char* what, int64_t width, const auto& f) {
        expect_amax(dtype, rows, width, fmt::format("{}, {} x {}", what, rows, cols), f);
      };
      check("rmsnorm", cols, [&](const Tensor& y, const Tensor& amax, CudaContext& c) {
        ops::cuda::rmsnorm_forward(y, grstd.tensor(), gx.tensor(), gw.tensor(), kEps, amax, c);
      });
      check("residual rmsnorm", cols, [&](const Tensor& y, const Tensor& amax, CudaContext& c) {
        ops::cuda::residual_rmsnorm_forward(gsum.tensor(), y, grstd.tensor(), gx.tensor(),
                                            gdelta.tensor(), gw.tensor(), kEps, amax, c);
      });
      check("layernorm", cols, [&](const Tensor& y, const Tensor& amax, CudaContext& c) {
        ops::cuda::layernorm_forward(y, gmean.tensor(), grstd.tensor(), gx.tensor(), gw.tensor(),
                                     gb.tensor(), kEps, amax, c);
      });
      check("residual layernorm", cols, [&](const Tensor& y, const Tensor& amax, CudaContext& c) {
        ops::cuda::residual_layernorm_forward(gsum.tensor(), y, gmean.tensor(), grstd.tensor(),
                                              gx.tensor(), gdelta.tensor(), gw.tensor(),
                                              gb.tensor(), kEps, amax, c);
      });
      Guarded dw(Dtype::kF32, 1, cols), db(Dtype::kF32, 1, cols);
      const DeviceCopy gdw(dw), gdb(db);
      for (const auto mode : {ops::Accumulate::kNo, ops::Accumulate::kYes}) {
        const auto dw_mode = ops::Accumulate::kNo;
        check("rmsnorm backward", cols, [&](const Tensor& dx, const Tensor& amax, CudaContext& c) {
          ops::cuda::cast(dx, gx.tensor(), c);  // what it adds to
          ops::cuda::rmsnorm_backward(dx, gdw.tensor(), gdelta.tensor(), gsum.tensor(), gw.tensor(),
                                      grstd.tensor(), mode, dw_mode, amax, c);
        });
        check("layernorm backward", cols,
              [&](const Tensor& dx, const Tensor& amax, CudaContext& c) {
                ops::cuda::cast(dx, gx.tensor(), c);
                ops::cuda::layernorm_backward(dx, gdw.tensor(), gdb.tensor(), gdelta.tensor(),
                                              gsum.tensor(), gw.tensor(), gmean.tensor(),
                                              grstd.tensor(), mode, dw_mode, amax, c);
              });
      }
      for (const Activation kind : {Activation::kGelu, Activation::kSwiglu}) {
        const bool gated = kind == Activation::kSwiglu;
        const DeviceCopy& in = gated ? gwide : gx;
        check("activation", cols, [&](const Tensor& y, const Tensor& amax, CudaContext& c) {
          ops::cuda::activation_forward(y, in.tensor(), kind, amax, c);
        });
        check("its gradient", gated ? 2 * cols : cols,
              [&](const Tensor& dx, const Tensor& amax, CudaContext& c) {
                ops::cuda::activation_backward(dx, gdelta.tensor(), in.tensor(), kind, amax, c);
              });
      }
    }
  }
}

}  // namespace
}  // namespace qstep::test
