#include "parallel/phase_limits.h"

#include <gtest/gtest.h>

namespace qstep::parallel {
namespace {

constexpr PhaseLimits kLimits = {.start_s = 600,
                                 .first_step_s = 300,
                                 .step_s = 60,
                                 .step_factor = 10,
                                 .evaluation_s = 100,
                                 .save_s = 200,
                                 .longest_factor = 5,
                                 .end_s = 30};

TEST(PhaseClock, PhasesHaveTheirFloors) {
  PhaseClock clock(kLimits, 1000);
  EXPECT_EQ(clock.phase(), Phase::kStart);
  EXPECT_EQ(clock.limit_s(), 600);
  EXPECT_EQ(clock.entered_s(), 1000);
  clock.enter(Phase::kStep, 7, 1400);
  EXPECT_EQ(clock.limit_s(), 300) << "the first one";
  EXPECT_EQ(clock.step(), 7);
  clock.enter(Phase::kStep, 8, 1600);
  EXPECT_EQ(clock.limit_s(), 60) << "the first step, of 200 s, does not count";
  clock.enter(Phase::kEvaluation, 8, 1601);
  EXPECT_EQ(clock.limit_s(), 100);
  clock.enter(Phase::kSave, 8, 1602);
  EXPECT_EQ(clock.limit_s(), 200);
  clock.enter(Phase::kEnd, 8, 1603);
  EXPECT_EQ(clock.limit_s(), 30);
  EXPECT_EQ(clock.entered_s(), 1603);
}

TEST(PhaseClock, StepsFollowThe99thPercentile) {
  PhaseClock clock(kLimits, 0);
  double now_s = 0;
  clock.enter(Phase::kStep, 0, now_s);
  for (int step = 1; step <= 201; ++step) {  // 201 ended: the first, 198 of 8 s, 2 of 50 s
    now_s += step == 100 || step == 101 ? 50 : 8;
    clock.enter(Phase::kStep, step, now_s);
  }
  EXPECT_EQ(clock.limit_s(), 80) << "two of two hundred are above";
  for (int step = 202; step <= 204; ++step) clock.enter(Phase::kStep, step, now_s += 20);
  EXPECT_EQ(clock.limit_s(), 200);
  for (int step = 205; step <= 500; ++step) clock.enter(Phase::kStep, step, now_s += 7);
  EXPECT_EQ(clock.limit_s(), 70) << "only the last 256 count";
}

TEST(PhaseClock, EvaluationsAndSavesFollowTheLongest) {
  PhaseClock clock(kLimits, 0);
  clock.enter(Phase::kSave, 1, 10);
  clock.enter(Phase::kEvaluation, 1, 60);  // a save of 50 s
  clock.enter(Phase::kSave, 2, 61);
  EXPECT_EQ(clock.limit_s(), 250);
  clock.enter(Phase::kSave, 3, 71);
  EXPECT_EQ(clock.limit_s(), 250);
  clock.enter(Phase::kEvaluation, 3, 72);
  EXPECT_EQ(clock.limit_s(), 100);
}

TEST(PhaseClock, StandingStillDoesNotCount) {
  PhaseClock clock(kLimits, 0);
  clock.enter(Phase::kStep, 0, 0);
  clock.enter(Phase::kStep, 1, 0);
  clock.pause(1000);
  EXPECT_EQ(clock.entered_s(), 1000);
  clock.enter(Phase::kStep, 2, 1008);
  EXPECT_EQ(clock.limit_s(), 80);
}

TEST(PhaseLimits, HaveTheDefaultsOfTheDocumentation) {
  const PhaseLimits limits;
  EXPECT_EQ(limits.start_s, 600);
  EXPECT_EQ(limits.first_step_s, 300);
  EXPECT_EQ(limits.step_s, 60);
  EXPECT_EQ(limits.step_factor, 10);
}

}  // namespace
}  // namespace qstep::parallel
