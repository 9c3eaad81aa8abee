// What the world of GPUs leaves to events: the host goes on while the device waits, and hears of a
// failure where it waits itself.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "parallel/nccl_world.h"
#include "tests/parallel/fake_cuda.h"
#include "tests/parallel/fake_nccl.h"
#include "tests/parallel/world_main.h"

namespace qstep::parallel {
namespace {

class Stream {
 public:
  Stream() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// The stream never gets further.
void stop(cudaStream_t stream) {
  cudaEvent_t never = nullptr;
  cudaEventCreate(&never);
  {
    const Stream gone;
    cudaEventRecord(never, gone);
  }
  cudaStreamWaitEvent(stream, never, 0);
}

float sum_of_ranks() {
  const int n = world().size();
  return static_cast<float>(n * (n + 1) / 2);
}

TEST(NcclStreams, TheHostGoesOnAndTheStreamWaits) {
  std::vector<float> x(1000), y(1000);
  const Stream compute;
  const std::unique_ptr<Comm> gpus = make_nccl(fake_hosts(), compute);
  const auto mine = static_cast<float>(world().rank() + 1);
  put_on_stream(compute, [&] { std::fill(x.begin(), x.end(), mine); });
  gpus->wait(gpus->all_reduce(ops::view(std::span(x)), Reduce::kSum));
  put_on_stream(compute, [&] { y = x; });
  EXPECT_NE(std::vector<float>(1000, sum_of_ranks()), x) << "the host waited";
  gpus->synchronize();
  EXPECT_EQ(std::vector<float>(1000, sum_of_ranks()), y);
}

// Behind wait(first) the stream goes on while the second is still under way.
TEST(NcclStreams, AWaitIsForItsTicketOnly) {
  if (world().size() == 1) return;
  std::vector<float> first(10, 1.0f), second(10, 1.0f), seen(10);
  const Stream compute;
  const std::unique_ptr<Comm> gpus = make_nccl(fake_hosts(), compute);
  const Comm::Ticket ticket = gpus->all_reduce(ops::view(std::span(first)), Reduce::kSum);
  gpus->all_reduce(ops::view(std::span(second)), Reduce::kSum);
  gpus->wait(ticket);
  put_on_stream(compute, [&] { seen = second; });
  gpus->synchronize();
  EXPECT_EQ(std::vector<float>(10, static_cast<float>(world().size())), first);
  EXPECT_EQ(std::vector<float>(10, 1.0f), seen);
}

class FailsLater final : public CollectiveObserver {
 public:
  void entered(const CollectiveRecord&) override { ++n_entered; }
  void left(const CollectiveRecord& record) override {
    EXPECT_LE(last_end_ns, record.end_ns);
    EXPECT_LE(record.begin_ns, record.end_ns);
    last_end_ns = record.end_ns;
    ++n_left;
  }
  std::optional<Failure> failure() override {
    if (!fails || ++n_asked < 100) return std::nullopt;
    return Failure{ops::ExitCode::kHang, "stands still"};
  }
  bool fails = false;
  int n_asked = 0, n_entered = 0, n_left = 0;
  int64_t last_end_ns = 0;
};

TEST(NcclStreams, TheObserverHearsWhatTheDeviceBegins) {
  std::vector<float> x(10);
  const Stream compute;
  FailsLater observer;
  const std::unique_ptr<Comm> gpus = make_nccl(fake_hosts(), compute, &observer);
  gpus->all_reduce(ops::view(std::span(x)), Reduce::kSum);
  stop(compute);
  gpus->all_reduce(ops::view(std::span(x)), Reduce::kSum);  // which the device never gets to
  observer.fails = true;
  EXPECT_THROW(gpus->synchronize(), ops::Error);
  EXPECT_EQ(1, observer.n_entered);
  EXPECT_EQ(1, observer.n_left);
  EXPECT_GT(observer.last_end_ns, 0);
}

TEST(NcclStreams, AFailureEndsTheHostsWaitAndEveryCallBehindIt) {
  std::vector<float> x(10);
  const Stream compute;
  FailsLater observer;
  const std::unique_ptr<Comm> gpus = make_nccl(fake_hosts(), compute, &observer);
  const int n_before = n_aborted();
  stop(compute);
  gpus->wait(gpus->all_reduce(ops::view(std::span(x)), Reduce::kSum));
  observer.fails = true;
  try {
    gpus->synchronize();
    ADD_FAILURE() << "went on";
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kHang, error.code());
    EXPECT_STREQ("stands still", error.what());
  }
  EXPECT_EQ(1, n_aborted() - n_before) << "its kernels would stand in the way of the process's end";
  EXPECT_THROW(gpus->all_reduce(ops::view(std::span(x)), Reduce::kSum), ops::Error);
  EXPECT_THROW(gpus->wait(1), ops::Error);
}

}  // namespace
}  // namespace qstep::parallel
