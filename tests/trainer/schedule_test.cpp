#include "trainer/step/schedule.h"

#include <gtest/gtest.h>

namespace qstep::trainer {
namespace {

OptimizerConfig config(Schedule schedule, int64_t warmup) {
  OptimizerConfig c;
  c.schedule = schedule;
  c.lr = 0.5;
  c.min_lr = 0.125;
  c.warmup_steps = warmup;
  c.decay_fraction = 0.25;
  return c;
}

std::vector<double> rates(const OptimizerConfig& c, int64_t steps) {
  std::vector<double> all;
  for (int64_t step = 0; step < steps; ++step) all.push_back(learning_rate(c, step, steps));
  return all;
}

TEST(Schedule, HasTheValuesOfItsFormulas) {
  EXPECT_EQ((std::vector<double>{0.125, 0.25, 0.375, 0.5, 0.5, 0.5}),
            rates(config(Schedule::kConstant, 4), 6));
  EXPECT_EQ((std::vector<double>{0.25, 0.5, 0.40625, 0.3125, 0.21875, 0.125}),
            rates(config(Schedule::kLinear, 2), 6));
  EXPECT_EQ((std::vector<double>{0.5, 0.40625, 0.3125, 0.21875, 0.125}),
            rates(config(Schedule::kLinear, 0), 5));
  // The last quarter of eight steps: from 0.5 at step 5 to 0.125 at step 7.
  EXPECT_EQ((std::vector<double>{0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3125, 0.125}),
            rates(config(Schedule::kWsd, 1), 8));
  const std::vector<double> cosine = rates(config(Schedule::kCosine, 1), 5);
  EXPECT_EQ(0.5, cosine[0]);
  EXPECT_DOUBLE_EQ(0.125 + 0.375 * (1 + std::sqrt(0.5)) / 2, cosine[1]);
  EXPECT_DOUBLE_EQ(0.3125, cosine[2]);
  EXPECT_DOUBLE_EQ(0.125 + 0.375 * (1 - std::sqrt(0.5)) / 2, cosine[3]);
  EXPECT_EQ(0.125, cosine[4]);
}

TEST(Schedule, ReachesTheTopAndTheEndExactlyAndStaysBetween) {
  for (const Schedule schedule :
       {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine, Schedule::kWsd}) {
    for (const int64_t steps : {1, 2, 3, 7, 100, 1001}) {
      for (const int64_t warmup : {0, 1, 2, 3, 99}) {
        if (warmup >= steps) continue;
        for (const double min_lr : {0.0, 1e-5}) {
          OptimizerConfig c = config(schedule, warmup);
          c.lr = 3e-4;
          c.min_lr = min_lr;
          const std::vector<double> all = rates(c, steps);
          if (warmup > 0) {
            EXPECT_EQ(c.lr, all[static_cast<size_t>(warmup - 1)]);
          }
          if (schedule != Schedule::kConstant) {
            EXPECT_EQ(min_lr, all.back()) << steps << " " << warmup;
          }
          for (int64_t i = 0; i < steps; ++i) {
            const double rate = all[static_cast<size_t>(i)];
            EXPECT_GE(rate, i < warmup ? 0.0 : min_lr);
            EXPECT_LE(rate, c.lr);
            if (i > 0 && i < warmup) {
              EXPECT_GT(rate, all[static_cast<size_t>(i - 1)]);
            }
            if (i > warmup) {
              EXPECT_LE(rate, all[static_cast<size_t>(i - 1)]);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace qstep::trainer
