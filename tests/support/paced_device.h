// A device that works beside its caller, as a GPU does, in real time but without work: what it is
// given takes it as long as is said, one after the other, each from kLatency after it was handed
// over. Its clock is another one than the host's.
#pragma once

#include <algorithm>
#include <chrono>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/support/wrapped_ops.h"

namespace qstep::test {

inline int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class PacedDevice final : public ops::DeviceClock {
 public:
  static constexpr int64_t kLatencyNs = 20'000;
  // When it was handed over, and when the device was at it: of the host's clock.
  struct Work {
    int64_t handed_over_ns = 0, begin_ns = 0, end_ns = 0;
    // There was something to do up to its beginning.
    bool follows = false;
  };

  Work run(int64_t length_ns) {
    const int64_t now = steady_ns();
    const bool follows = free_ns_ >= now + kLatencyNs;
    const int64_t begin = follows ? free_ns_ : now + kLatencyNs;
    free_ns_ = begin + length_ns;
    return {now, begin, free_ns_, follows};
  }
  void wait() const {
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::max<int64_t>(0, left_ns())));
    while (left_ns() > 0) continue;
  }

  void start() override { marks_.clear(); }
  int64_t mark() override {
    marks_.push_back(run(0));
    return static_cast<int64_t>(marks_.size()) - 1;
  }
  void read(std::span<int64_t> times_ns) override {
    ops::check(times_ns.size() == marks_.size(), "read: marks");
    wait();
    std::vector<int64_t> handed_over;
    for (size_t i = 0; i < marks_.size(); ++i) {
      times_ns[i] = marks_[i].end_ns + kOffsetNs;
      handed_over.push_back(marks_[i].handed_over_ns);
    }
    ops::place_on_host_clock(times_ns, handed_over);
  }

 private:
  static constexpr int64_t kOffsetNs = -123'456'789'012'345;
  int64_t left_ns() const { return free_ns_ - steady_ns(); }

  int64_t free_ns_ = 0;
  std::vector<Work> marks_;
};

// The CPU's operations at such a device's pace: their results are there at once, but nobody may
// look ahead of download.
class PacedOps final : public WrappedOps {
 public:
  struct Call {
    std::string_view name;
    PacedDevice::Work work;
  };

  explicit PacedOps(int64_t call_ns) : call_ns_(call_ns) {}

  std::string_view name() const override { return "paced"; }
  ops::DeviceClock* clock() override { return &device_; }
  ops::Buffer allocate(int64_t bytes) override {
    ++n_allocations;
    return inner_->allocate(bytes);
  }

  // Up to now.
  int64_t n_allocations = 0, n_waits = 0;
  std::vector<Call> calls;

 private:
  void run(std::string_view call, const std::function<void()>& f) override {
    f();
    calls.push_back({call, device_.run(call_ns_)});
    if (!call.starts_with("download")) return;
    ++n_waits;
    device_.wait();
  }

  int64_t call_ns_;
  PacedDevice device_;
};

}  // namespace qstep::test
