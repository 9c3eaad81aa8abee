// Copies between host and GPU beside the host, and times of the stream.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "ops/cuda/cuda_clock.h"
#include "ops/cuda/cuda_copies.h"
#include "tests/gpu/on_gpu.h"

namespace qstep::test {
namespace {

using ops::CudaContext;

class StreamOnGpu : public OnGpu {};

// More than the pinned memory holds, in pieces of every size, from one place that is overwritten at
// once, while the stream is busy.
TEST_F(StreamOnGpu, BytesArriveWhateverBecomesOfTheSource) {
  constexpr int64_t kBytes = 50 << 20;
  CudaContext context;
  ops::CudaCopies copies(context.stream());
  const ops::Buffer device = ops::allocate_device(kBytes), busy = ops::allocate_device(1 << 30);
  for (int i = 0; i < 50; ++i) {
    ops::cuda_check(cudaMemsetAsync(busy.data(), i, 1 << 30, context.stream()), "cudaMemset");
  }
  std::vector<int32_t> sent(kBytes / 4);
  std::iota(sent.begin(), sent.end(), 1);
  Random random(883);
  for (int64_t at = 0; at < kBytes;) {
    const int64_t n = std::min(kBytes - at, 4 * random.integer(1, 1 << random.integer(1, 21)));
    std::vector<int32_t> source(sent.begin() + at / 4, sent.begin() + (at + n) / 4);
    copies.upload(static_cast<char*>(device.data()) + at, source.data(), n);
    std::fill(source.begin(), source.end(), -1);
    at += n;
  }
  const ops::Tensor all = ops::matrix(device.data(), ops::Dtype::kI32, 1, kBytes / 4);
  std::vector<int32_t> received(sent.size()), first(3), last(5);
  copies.download(std::array{ops::HostCopy{received.data(), all}});
  EXPECT_TRUE(sent == received);
  copies.download(std::array{ops::HostCopy{first.data(), all.col_range(0, 3)},
                             ops::HostCopy{last.data(), all.col_range(kBytes / 4 - 5, 5)}});
  EXPECT_TRUE(std::equal(first.begin(), first.end(), sent.begin()));
  EXPECT_TRUE(std::equal(last.begin(), last.end(), sent.end() - 5));
}

TEST_F(StreamOnGpu, MarksAreReachedInOrderAndWhenTheWorkIsDone) {
  CudaContext context;
  ops::CudaClock clock(context);
  const ops::Buffer buffer = ops::allocate_device(1 << 30);
  const auto now = [] {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  for (int round = 0; round < 3; ++round) {  // the second uses the events of the first
    ops::cuda_check(cudaStreamSynchronize(context.stream()), "cudaStreamSynchronize");
    const int64_t begin = now();
    clock.start();
    std::vector<int64_t> times(20);
    for (size_t i = 0; i < times.size(); ++i) {
      EXPECT_EQ(static_cast<int64_t>(i), clock.mark());
      ops::cuda_check(cudaMemsetAsync(buffer.data(), 1, 1 << 30, context.stream()), "cudaMemset");
    }
    clock.read(times);
    EXPECT_LE(begin, times.front());
    EXPECT_LE(times.back(), now() + 50'000);  // the clocks may drift
    for (size_t i = 1; i < times.size(); ++i) {
      // 1 GiB at no more than 20 TB/s.
      EXPECT_GE(times[i] - times[i - 1], 50'000) << i;
    }
  }
}

}  // namespace
}  // namespace qstep::test
