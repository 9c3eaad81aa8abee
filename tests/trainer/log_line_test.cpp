// The line of a run, byte for byte.
#include "trainer/run/log_line.h"

#include <gtest/gtest.h>

#include <cmath>

namespace qstep::trainer {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

LogLine example() {
  return {.step = 100,
          .steps = 50000,
          .loss = 3.4123,
          .loss_z = 0.1,
          .grad_norm = 0.812,
          .grad_norm_z = -0.4,
          .lr = 2.99e-4,
          .step_ms = 744.7,
          .p50_ms = 744.1,
          .p95_ms = 752.0,
          .tokens_per_s = 11000,
          .tflops_causal = 566.2,
          .mfu_bf16 = 0.572,
          .sol = 0.339,
          .comm_exposed_ms = 18.2,
          .data_wait_ms = 0.1,
          .memory_bytes = 61 * kGiB + kGiB / 5,
          .memory_total_bytes = 139 * kGiB + kGiB / 10,
          .recipe = "fp8-current",
          .runs = "native",
          .skipped = 0,
          .not_finite = 0,
          .left_s = 37161};
}

TEST(LogLine, HasItsFieldsInTheirOrder) {
  EXPECT_EQ(
      log_line(example()),
      "step   100/50000 | loss 3.4123 (+0.1z) | gnorm 0.812 (-0.4z) | lr 2.990e-04 | 744.7 ms "
      "(p50 744.1 p95 752.0) | tok/s/rank 11000 | tflops 566.2 causal | mfu 57.2 %bf16 | sol "
      "33.9 % | comm_exp 18.2 ms (2.4 %) | data 0.1 ms | mem 61.2/139.1 GiB | recipe "
      "fp8-current native | skip 0 nan 0 | eta 10h19m");
}

TEST(LogLine, WhatIsNotKnownIsThereAndANanToo) {
  LogLine line = example();
  line.loss = -std::nan("");
  line.loss_z = line.mfu_bf16 = line.sol = line.comm_exposed_ms = std::nan("");
  line.not_finite = 2;
  EXPECT_EQ(log_line(line),
            "step   100/50000 | loss nan (z n/a) | gnorm 0.812 (-0.4z) | lr 2.990e-04 | 744.7 ms "
            "(p50 744.1 p95 752.0) | tok/s/rank 11000 | tflops 566.2 causal | mfu n/a | sol n/a | "
            "comm_exp n/a | data 0.1 ms | mem 61.2/139.1 GiB | recipe fp8-current native | skip 0 "
            "nan 2 | eta 10h19m");
}

StepRow row_of(int64_t step, double ms, float loss) {
  StepRow row;
  row.step = step;
  row.loss = loss;
  row.grad_norm = 1;
  row.step_ms = ms;
  row.tokens_per_s = 4096 / (ms * 1e-3);
  row.tflops_causal = 1 / ms;
  row.mfu_bf16 = 2 / ms;
  row.sol = 3 / ms;
  row.comm_exposed_ms = ms / 10;
  return row;
}

TEST(LogInterval, SaysMeansAndRatesAtTheMeanTime) {
  LogInterval interval;
  interval.add(row_of(7, 10, 4));
  interval.add(row_of(8, 20, 2));
  interval.add(row_of(9, 60, 0));
  EXPECT_EQ(interval.steps(), 3);
  const LogLine line = interval.take(2);
  EXPECT_EQ(line.step, 9);
  EXPECT_DOUBLE_EQ(line.loss, 2);
  EXPECT_DOUBLE_EQ(line.step_ms, 30);
  EXPECT_DOUBLE_EQ(line.p50_ms, 20);
  EXPECT_DOUBLE_EQ(line.p95_ms, 56);  // 0.9 of the way from 20 to 60
  EXPECT_DOUBLE_EQ(line.tokens_per_s, 4096 / 0.03 / 2);
  EXPECT_DOUBLE_EQ(line.tflops_causal, 1.0 / 30);
  EXPECT_DOUBLE_EQ(line.mfu_bf16, 2.0 / 30);
  EXPECT_DOUBLE_EQ(line.sol, 3.0 / 30);
  EXPECT_DOUBLE_EQ(line.comm_exposed_ms, 3);
  EXPECT_TRUE(std::isnan(line.loss_z));
}

TEST(LogInterval, BeginsAnewAndCountsNansOfTheWholeRun) {
  LogInterval interval;
  interval.add(row_of(1, 10, NAN));
  EXPECT_TRUE(std::isnan(interval.take(1).loss));
  interval.add(row_of(2, 40, 3));
  const LogLine line = interval.take(1);
  EXPECT_DOUBLE_EQ(line.loss, 3);
  EXPECT_DOUBLE_EQ(line.step_ms, 40);
  EXPECT_EQ(line.not_finite, 1);
  StepRow quiet = row_of(3, 10, 3);
  quiet.comm_exposed_ms.reset();
  interval.add(quiet);
  EXPECT_TRUE(std::isnan(interval.take(1).comm_exposed_ms));
}

TEST(OutlierScore, IsInStandardDeviationsOfTheWindow) {
  OutlierScore score;
  double z = 0;
  for (int i = 0; i < 15; ++i) z = score.add(i % 2);
  EXPECT_TRUE(std::isnan(z));
  // Eight ones and eight zeros: mean and standard deviation 1 / 2.
  EXPECT_DOUBLE_EQ(score.add(1), 1);
  EXPECT_TRUE(std::isnan(score.add(NAN)));
  for (int i = 0; i < 128; ++i) z = score.add(5);
  EXPECT_TRUE(std::isnan(z));  // the window forgot the others: all are equal
  // 127 fives and a six: mean 5 + 1 / 128, variance 127 / 128^2.
  EXPECT_NEAR(score.add(6), std::sqrt(127.0), 1e-9);
}

}  // namespace
}  // namespace qstep::trainer
