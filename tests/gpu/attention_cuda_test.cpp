// Attention on a GPU, by cuDNN's kernels and by the row kernels, against FP64 within their bounds.
#include "ops/attention/attention_cuda.h"

#include "ops/attention/attention_path.h"
#include "tests/gpu/fused_attention.h"
#include "tests/gpu/on_gpu.h"

namespace qstep::test::attention {
namespace {

using ops::CudaContext;
using ops::Direction;

// Forward and backward of a case, whose results start as NaNs.
void run_on_gpu(const FusedCase& c, ops::cuda::Attention& attention, const CudaContext& context) {
  DeviceCopy qkv(c.qkv), d_o(c.d_o), o(c.o), lse(c.lse), dqkv(c.dqkv);
  attention.forward(o.tensor(), lse.tensor(), qkv.tensor(), c.shape);
  attention.backward(dqkv.tensor(), d_o.tensor(), qkv.tensor(), o.tensor(), lse.tensor(), c.shape);
  ops::cuda_check(cudaStreamSynchronize(context.stream()), "attention");
  for (DeviceCopy* copy : {&qkv, &d_o, &o, &lse, &dqkv}) EXPECT_TRUE(copy->download());
}

// Backward's choice says it all: what it takes forward does, too.
std::string path(ops::cuda::Attention& attention, const AttentionShape& shape) {
  return attention.path(shape, Dtype::kBf16, Direction::kBackward);
}

class AttentionOnGpu : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    CudaContext context;
    ops::cuda::Attention attention(context);
    const std::string found = path(attention, make_shape(1, 128, 1, 1, 64));
    if (!found.starts_with("cuDNN")) GTEST_SKIP() << "needs cuDNN 9.18 or later: " << found;
  }
};

// Within the bounds; the same bits with what has been planned, and with plans of its own.
void expect_within_bounds(const AttentionShape& shape, double size, int64_t scratch_limit) {
  SCOPED_TRACE(describe(shape, Dtype::kBf16) + fmt::format(", scratch {}", scratch_limit));
  CudaContext context;
  std::vector<std::byte> bits;
  for (int plans = 0; plans < 2; ++plans) {
    ops::cuda::Attention attention(context, scratch_limit);
    EXPECT_TRUE(path(attention, shape).starts_with("cuDNN")) << path(attention, shape);
    for (int run = 0; run < 2; ++run) {
      FusedCase c(shape, 41, size);
      run_on_gpu(c, attention, context);
      if (bits.empty()) {
        bits = bits_of(c.o, c.lse, c.dqkv);
        c.expect_bounded_results();
      }
      EXPECT_EQ(bits, bits_of(c.o, c.lse, c.dqkv));
    }
  }
}

constexpr int64_t kEnough = int64_t{1} << 30;

TEST_F(AttentionOnGpu, FusedKernelsStayWithinTheirBounds) {
  for (const AttentionShape& shape :
       {make_shape(1, 2, 1, 1, 64), make_shape(2, 128, 2, 2, 64), make_shape(2, 130, 3, 3, 128),
        make_shape(1, 257, 8, 2, 64), make_shape(3, 67, 4, 1, 128), make_shape(1, 640, 2, 1, 128),
        make_shape(1, 199, 2, 1, 80), make_shape(2, 33, 2, 2, 8)}) {
    expect_within_bounds(shape, 1.5, kEnough);
  }
}

// Scores of several hundred.
TEST_F(AttentionOnGpu, LargeScoresStayWithinTheirBounds) {
  expect_within_bounds(make_shape(1, 150, 2, 1, 64), 20, kEnough);
}

// Where ds waits in scratch: sequence by sequence, and heads of one.
TEST_F(AttentionOnGpu, PartsStayWithinTheBounds) {
  for (const int64_t scratch_limit : {int64_t{1} << 20, int64_t{1} << 18}) {
    expect_within_bounds(make_shape(3, 256, 8, 4, 64), 1.5, scratch_limit);
  }
}

class RowAttentionOnGpu : public OnGpu {};

TEST_F(RowAttentionOnGpu, TakesWhatCudnnHasNothingFor) {
  CudaContext context;
  ops::cuda::Attention attention(context);
  for (const AttentionShape& shape : {make_shape(2, 35, 4, 2, 20), make_shape(3, 1, 2, 2, 64)}) {
    SCOPED_TRACE(describe(shape, Dtype::kBf16));
    EXPECT_TRUE(path(attention, shape).starts_with("plain FP32 kernels: "));
    FusedCase c(shape, 42);
    run_on_gpu(c, attention, context);
    c.expect_bounded_results();
  }
  EXPECT_EQ(
      ops::attention_path_on_gpu(make_shape(1, 8, 1, 1, 64), Dtype::kF32, Direction::kForward),
      "plain FP32 kernels: its tensors are fp32");
}

TEST(AttentionPath, NeedsAGpu) {
  int n_devices = 0;
  if (cudaGetDeviceCount(&n_devices) == cudaSuccess && n_devices > 0) {
    GTEST_SKIP() << "needs a machine without an NVIDIA GPU";
  }
  EXPECT_THROW((void)ops::attention_path_on_gpu(make_shape(1, 8, 1, 1, 64), Dtype::kBf16,
                                                Direction::kForward),
               ops::Error);
}

}  // namespace
}  // namespace qstep::test::attention
