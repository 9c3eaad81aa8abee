// Times of a step on a device that works beside the host: those of the device, found without
// waiting for it. The device is made up (tests/support/paced_device.h); the host may be held up at
// any time by what else runs on the machine, so that what is expected follows from what the device
// says it did.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/paced_device.h"
#include "tests/support/test_name.h"
#include "tests/trainer/step_testing.h"
#include "trainer/timing/breakdown.h"

namespace qstep::trainer::testing {
namespace {

using test::PacedDevice;
using test::PacedOps;
using test::steady_ns;

constexpr int64_t kMs = 1'000'000;

void spin(int64_t ns) {
  for (const int64_t begin = steady_ns(); steady_ns() < begin + ns;) continue;
}

double gap_ms(const Timeline& timeline) {
  return breakdown(timeline.spans(), timeline.step())[static_cast<size_t>(Category::kHostGap)];
}

// The quickest hand-over counts as none.
TimeRange placed(const PacedDevice::Work& work) {
  return {work.begin_ns - PacedDevice::kLatencyNs, work.end_ns - PacedDevice::kLatencyNs};
}

// The span ends when the device did, and begins when the device did where it was busy; otherwise
// when the host began with the call.
void expect_time(const PacedDevice::Work& work, const TimeSpan& span, int64_t host_began_ns) {
  const TimeRange expected = placed(work);
  EXPECT_EQ(expected.end, span.when.end);
  if (work.follows) {
    EXPECT_EQ(expected.begin, span.when.begin);
  } else {
    EXPECT_GE(expected.begin, span.when.begin);
    EXPECT_LE(host_began_ns, span.when.begin);
  }
}

class DeviceTimeline : public ::testing::Test {
 protected:
  // A call of this length.
  PacedDevice::Work call(int64_t ns) {
    const Timeline::Stamp begin = timeline_.begin_call();
    const PacedDevice::Work work = device_.run(ns);
    timeline_.end_call(begin, Category::kGemmBf16, "gemm");
    return work;
  }
  void stop() {
    timeline_.stand_still([&] { device_.wait(); });
    timeline_.stop();
  }

  PacedDevice device_;
  Timeline timeline_{TimingLevel::kOps, &device_};
};

TEST_F(DeviceTimeline, CallsTakeWhatTheyTakeTheDevice) {
  for (int step = 0; step < 2; ++step) {  // the second forgets the first
    timeline_.start();
    std::vector<PacedDevice::Work> works;
    std::vector<int64_t> began;
    for (int i = 0; i < 8; ++i) {
      began.push_back(steady_ns());
      works.push_back(call((1 + i % 3) * kMs));
    }
    stop();
    ASSERT_EQ(works.size(), timeline_.spans().size());
    int64_t covered = 0;
    for (size_t i = 0; i < works.size(); ++i) {
      SCOPED_TRACE(i);
      expect_time(works[i], timeline_.spans()[i], began[i]);
      covered += timeline_.spans()[i].when.length();
    }
    EXPECT_NEAR(static_cast<double>(timeline_.step().length() - covered) * 1e-6, gap_ms(timeline_),
                1e-9);
  }
}

// The host does something else ahead of every call, and the device has nothing to run then.
TEST_F(DeviceTimeline, GapsAreWhenTheDeviceHadNothingToRun) {
  timeline_.start();
  std::vector<PacedDevice::Work> works;
  std::vector<int64_t> began;
  for (int i = 0; i < 5; ++i) {
    spin(2 * kMs);
    began.push_back(steady_ns());
    works.push_back(call(kMs / 2));
  }
  stop();
  const std::span<const TimeSpan> spans = timeline_.spans();
  for (size_t i = 0; i < works.size(); ++i) {
    EXPECT_FALSE(works[i].follows);
    expect_time(works[i], spans[i], began[i]);
    const int64_t gap =
        spans[i].when.begin - (i == 0 ? timeline_.step().begin : spans[i - 1].when.end);
    EXPECT_GE(gap, began[i] - (i == 0 ? timeline_.step().begin : placed(works[i - 1]).end));
  }
  EXPECT_GE(gap_ms(timeline_), 2 + 4 * 1.5);
}

// The host waits for a batch while the device has work: it stands still only from when that ends.
TEST_F(DeviceTimeline, AWaitIsWhatTheDeviceStoodStillFor) {
  timeline_.start();
  timeline_.wait(Category::kDataWait, [] { spin(2 * kMs); });
  const PacedDevice::Work before = call(20 * kMs);
  timeline_.wait(Category::kDataWait, [] { spin(kMs); });
  const PacedDevice::Work after = call(kMs);
  // On the stream: the device waits for others, the host does not.
  PacedDevice::Work others;
  timeline_.wait(Category::kGradReduce, [&] { others = device_.run(3 * kMs); });
  stop();

  const std::span<const TimeSpan> spans = timeline_.spans();
  ASSERT_EQ(5u, spans.size());
  EXPECT_GE(spans[0].when.length(), 2 * kMs);
  if (after.follows) {
    EXPECT_EQ(0, spans[2].when.length());
  }
  expect_time(others, spans[4], before.handed_over_ns);
  if (others.follows) {
    EXPECT_EQ(3 * kMs, spans[4].when.length());
  }
  const Breakdown ms = breakdown(spans, timeline_.step());
  EXPECT_NEAR(static_cast<double>(timeline_.step().length()) * 1e-6,
              std::accumulate(ms.begin(), ms.end(), 0.0), 1e-9);
}

TEST_F(DeviceTimeline, AWaitWithinACallIsNotTheCalls) {
  timeline_.start();
  call(kMs);
  const Timeline::Stamp begin = timeline_.begin_call();
  const PacedDevice::Work first = device_.run(2 * kMs);
  PacedDevice::Work others;
  timeline_.wait(Category::kTpComm, [&] { others = device_.run(4 * kMs); });
  const PacedDevice::Work second = device_.run(kMs);
  timeline_.end_call(begin, Category::kQuant, "quantize");
  stop();
  ASSERT_EQ(3u, timeline_.spans().size());
  const TimeSpan& quantize = timeline_.spans()[2];
  EXPECT_EQ(timeline_.spans()[1].when.length(), quantize.waited_ns);
  if (others.follows) {
    EXPECT_EQ(placed(first).end, timeline_.spans()[1].when.begin);
  }
  EXPECT_EQ(placed(others).end, timeline_.spans()[1].when.end);
  EXPECT_EQ(placed(second).end, quantize.when.end);
  if (first.follows && others.follows && second.follows) {
    EXPECT_EQ(3 * kMs, quantize.own_ns());
  }
}

TEST(DevicePhases, AreTheDevicesAtEveryLevel) {
  for (const TimingLevel level : {TimingLevel::kOff, TimingLevel::kPhases, TimingLevel::kOps}) {
    SCOPED_TRACE(static_cast<int>(level));
    PacedDevice device;
    Timeline timeline(level, &device);
    const auto call = [&](int64_t ns) {
      const Timeline::Stamp begin = timeline.notes_calls() ? timeline.begin_call() : 0;
      const PacedDevice::Work work = device.run(ns);
      if (timeline.notes_calls()) timeline.end_call(begin, Category::kGemmBf16, "gemm");
      return work;
    };
    timeline.start();
    timeline.enter(Phase::kForward);
    call(5 * kMs);
    timeline.enter(Phase::kBackward);
    const PacedDevice::Work backward = call(9 * kMs);
    timeline.enter(Phase::kOther);
    timeline.stand_still([&] { device.wait(); });
    const PhaseTimes ms = timeline.stop();
    EXPECT_NEAR(static_cast<double>(timeline.step().length()) * 1e-6, total_ms(ms), 1e-9);
    EXPECT_GE(ms[static_cast<size_t>(Phase::kForward)], 5.0);
    if (backward.follows) {
      EXPECT_NEAR(9.0, ms[static_cast<size_t>(Phase::kBackward)], 1e-9);
    }
    EXPECT_EQ(level == TimingLevel::kOps, !timeline.phases().empty());
  }
}

TEST_F(DeviceTimeline, TheHostsOwnTimeIsWithoutItsWaits) {
  timeline_.start();
  spin(kMs);
  int64_t waited = 0;
  timeline_.wait(Category::kDataWait, [&] {
    const int64_t begin = steady_ns();
    spin(2 * kMs);
    waited += steady_ns() - begin;
  });
  call(10 * kMs);
  timeline_.stand_still([&] {
    const int64_t begin = steady_ns();
    device_.wait();
    waited += steady_ns() - begin;
  });
  timeline_.stop();
  ASSERT_TRUE(timeline_.host_ms());
  EXPECT_GE(*timeline_.host_ms(), 1.0);
  EXPECT_LE(*timeline_.host_ms(),
            static_cast<double>(timeline_.step().length() - waited) * 1e-6 + 1e-9);
  EXPECT_FALSE(Timeline().host_ms());
}

// Whole steps.
class PacedSteps : public ::testing::TestWithParam<const char*> {};

TEST_P(PacedSteps, WaitOnceAllocateNothingAndAddUp) {
  constexpr int64_t kBatch = 2, kTokens = 8, kMicros = 3;
  Config config = step_config(tiny_model(), kBatch, kTokens);
  config.train.global_batch = kMicros * kBatch;
  set_recipe(config, GetParam());
  config.timing.level = TimingLevel::kOps;
  const auto cpu = ops::make_cpu_ops();
  PacedOps paced(200'000);
  Trainer on_cpu(*cpu, config), trainer(paced, config);
  std::vector<test::Batch> micros;
  for (uint64_t i = 0; i < kMicros; ++i) {
    micros.push_back(random_batch(config.model, kBatch, kTokens, 310 + i));
  }
  FixedBatches batches(micros), the_same(micros);
  for (int64_t update = 1; update <= 2; ++update) {
    const StepResult expected = on_cpu.step(the_same, 1e-3, update);
    paced.calls.clear();
    paced.n_allocations = paced.n_waits = 0;
    const StepResult found = trainer.step(batches, 1e-3, update);
    EXPECT_EQ(expected.loss, found.loss);
    EXPECT_EQ(expected.grad_norm, found.grad_norm);
    EXPECT_EQ(1, paced.n_waits);
    EXPECT_EQ("download_all", paced.calls.back().name);
    EXPECT_EQ(0, paced.n_allocations);
    EXPECT_FALSE(expected.host_ms);
    EXPECT_TRUE(found.host_ms);

    const Timeline& timeline = trainer.timeline();
    const double step_ms = static_cast<double>(timeline.step().length()) * 1e-6;
    EXPECT_NEAR(step_ms,
                std::accumulate(found.breakdown_ms->begin(), found.breakdown_ms->end(), 0.0), 1e-6);
    EXPECT_NEAR(step_ms, total_ms(found.phases_ms), 1e-6);
    std::vector<TimeSpan> calls;
    for (const TimeSpan& span : timeline.spans()) {
      if (!is_wait(span.category)) calls.push_back(span);
    }
    ASSERT_EQ(paced.calls.size(), calls.size());
    // The host takes its time to come back from the last one, which waits.
    EXPECT_LE(placed(paced.calls.back().work).end, calls.back().when.end);
    for (size_t i = 0; i + 1 < calls.size(); ++i) {
      SCOPED_TRACE(paced.calls[i].name);
      expect_time(paced.calls[i].work, calls[i], timeline.step().begin);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Recipes, PacedSteps,
                         ::testing::Values("bf16", "nvfp4", "fp8-delayed", "mxfp8"),
                         [](const auto& test) { return test::test_name(test.param); });

}  // namespace
}  // namespace qstep::trainer::testing
