// Phases and spans of a step as they are noted.
#include "trainer/timing/timeline.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

namespace qstep::trainer::testing {
namespace {

using Clock = std::chrono::steady_clock;
double ms(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

TEST(Timeline, PhasesAddUpToTheTimeBetweenStartAndStop) {
  Timeline timer;
  const auto before = Clock::now();
  timer.start();
  const auto started = Clock::now();
  for (const Phase phase : {Phase::kData, Phase::kForward, Phase::kForward, Phase::kBackward,
                            Phase::kForward, Phase::kOptimizer}) {
    timer.enter(phase);
    for (const auto begin = Clock::now(); ms(begin, Clock::now()) < 0.2;) continue;
  }
  const auto stopping = Clock::now();
  const PhaseTimes times = timer.stop();
  const auto after = Clock::now();
  EXPECT_GE(total_ms(times), ms(started, stopping) - 1e-9);
  EXPECT_LE(total_ms(times), ms(before, after) + 1e-9);
  EXPECT_GE(times[static_cast<size_t>(Phase::kForward)], 0.6);
  EXPECT_GE(times[static_cast<size_t>(Phase::kBackward)], 0.2);
  EXPECT_EQ(total_ms(times), std::accumulate(times.begin(), times.end(), 0.0));
}

TEST(Timeline, StartForgets) {
  Timeline timer;
  timer.start();
  timer.enter(Phase::kForward);
  for (const auto begin = Clock::now(); ms(begin, Clock::now()) < 0.2;) continue;
  timer.stop();
  timer.start();
  EXPECT_EQ(0.0, timer.stop()[static_cast<size_t>(Phase::kForward)]);
}

void spin(double for_ms) {
  for (const auto begin = Clock::now(); ms(begin, Clock::now()) < for_ms;) continue;
}

// A step with a wait by itself and one within a call.
void note_step(Timeline& timeline) {
  timeline.start();
  timeline.enter(Phase::kForward);
  timeline.label(3, "qkv fprop");
  timeline.wait(Category::kParamGather, [] { spin(0.2); });
  if (timeline.notes_calls()) {
    const Timeline::Stamp mark = timeline.begin_call();
    timeline.wait(Category::kTpComm, [] { spin(0.1); });
    timeline.end_call(mark, Category::kQuant, "quantize");
  }
  timeline.stop();
}

TEST(Timeline, NotesWaitsAndCallsWithWhatTheyAreFor) {
  Timeline timeline(TimingLevel::kOps);
  for (int step = 0; step < 2; ++step) {  // the second forgets the first
    note_step(timeline);
    const std::span<const TimeSpan> spans = timeline.spans();
    ASSERT_EQ(3u, spans.size());
    EXPECT_EQ(Category::kParamGather, spans[0].category);
    EXPECT_EQ(Category::kTpComm, spans[1].category);
    EXPECT_EQ("quantize", spans[2].call);
    EXPECT_EQ(spans[1].when.length(), spans[2].waited_ns);
    EXPECT_GE(spans[0].own_ns(), 200'000);
    for (const TimeSpan& span : spans) {
      EXPECT_EQ(Phase::kForward, span.phase);
      EXPECT_EQ(3, span.layer);
      EXPECT_EQ("qkv fprop", span.label);
      EXPECT_GE(span.when.begin, timeline.step().begin);
      EXPECT_LE(span.when.end, timeline.step().end);
    }
    EXPECT_FALSE(timeline.notes_calls());  // the step is over
  }
}

TEST(Timeline, LevelsNoteLess) {
  Timeline waits(TimingLevel::kPhases), nothing(TimingLevel::kOff);
  note_step(waits);
  note_step(nothing);
  ASSERT_EQ(1u, waits.spans().size());
  EXPECT_EQ(Category::kParamGather, waits.spans()[0].category);
  EXPECT_TRUE(nothing.spans().empty());
}

// A micro-batch that is evaluated waits for weights too.
TEST(Timeline, NotesNothingBetweenSteps) {
  Timeline timeline(TimingLevel::kOps);
  timeline.wait(Category::kParamGather, [] {});
  EXPECT_TRUE(timeline.spans().empty());
  note_step(timeline);
  timeline.wait(Category::kParamGather, [] {});
  EXPECT_EQ(3u, timeline.spans().size());
}

TEST(Timeline, PhasesAreTheStep) {
  Timeline timeline(TimingLevel::kOps);
  timeline.start();
  timeline.wait(Category::kDataWait, [] { spin(0.1); });
  timeline.wait(Category::kGradReduce, [] { spin(0.2); });
  const PhaseTimes times = timeline.stop();
  EXPECT_GE(times[static_cast<size_t>(Phase::kData)], 0.1);
  EXPECT_GE(times[static_cast<size_t>(Phase::kComm)], 0.2);
  EXPECT_NEAR(static_cast<double>(timeline.step().length()) * 1e-6, total_ms(times), 1e-9);
}

// Waits for other ranks are inside the phase that they interrupt.
TEST(Timeline, PhasesFollowEachOther) {
  Timeline timeline(TimingLevel::kOps);
  for (int step = 0; step < 2; ++step) {
    timeline.start();
    timeline.enter(Phase::kForward);
    timeline.wait(Category::kTpComm, [] { spin(0.1); });
    timeline.enter(Phase::kForward);
    timeline.enter(Phase::kBackward);
    timeline.stop();
    const std::span<const PhaseSpan> phases = timeline.phases();
    ASSERT_EQ(3u, phases.size());
    EXPECT_EQ(Phase::kOther, phases[0].phase);
    EXPECT_EQ(Phase::kForward, phases[1].phase);
    EXPECT_EQ(Phase::kBackward, phases[2].phase);
    EXPECT_GE(phases[1].when.length(), 100'000);
    EXPECT_EQ(timeline.step().begin, phases[0].when.begin);
    EXPECT_EQ(phases[0].when.end, phases[1].when.begin);
    EXPECT_EQ(phases[1].when.end, phases[2].when.begin);
    EXPECT_EQ(timeline.step().end, phases[2].when.end);
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
