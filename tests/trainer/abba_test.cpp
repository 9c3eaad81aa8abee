// The protocol of a comparison on machines that are simulated: with noise, with drift, with a gain
// that is known.
#include "trainer/bench/abba.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "tests/support/compare.h"
#include "tests/trainer/normal_numbers.h"

namespace qstep::trainer::testing {
namespace {

using Values = std::vector<double>;

TEST(Abba, Order) {
  std::string order;
  for (int64_t s = 0; s < 12; ++s) order += side_of(s) == Side::kA ? 'A' : 'B';
  EXPECT_EQ("ABBABAABABBA", order);
}

TEST(Abba, TurnsCountTheSegmentsOfASide) {
  std::map<Side, int64_t> turns;
  for (int64_t s = 0; s < 24; ++s) EXPECT_EQ(turns[side_of(s)]++, turn_of(s)) << s;
}

TEST(Abba, PairsAreRatiosOfNeighbours) {
  const Values segments{10, 20, 24, 12, /* B A A B */ 30, 10, 14, 18, /* not whole */ 1, 2, 3};
  const Values logs = pair_logs(segments);
  ASSERT_EQ(4u, logs.size());
  EXPECT_DOUBLE_EQ(std::log(10.0 / 20.0), logs[0]);
  EXPECT_DOUBLE_EQ(std::log(12.0 / 24.0), logs[1]);
  EXPECT_DOUBLE_EQ(std::log(10.0 / 30.0), logs[2]);
  EXPECT_DOUBLE_EQ(std::log(14.0 / 18.0), logs[3]);
  EXPECT_EQ((Values{(logs[0] + logs[1]) / 2, (logs[2] + logs[3]) / 2}), block_logs(logs));
  EXPECT_TRUE(pair_logs(Values{1, 2, 3}).empty());
  EXPECT_ANY_THROW(pair_logs(Values{1, 0, 0, 1}));
}

TEST(Abba, ASteadyDriftCancelsInABlock) {
  Values segments;
  for (int s = 0; s < 32; ++s) segments.push_back(100 * std::exp(0.01 * s));
  for (const double log : block_logs(pair_logs(segments))) EXPECT_NEAR(0.0, log, 1e-15);
  EXPECT_NEAR(1.0, judge(pair_logs(segments), {}).gain, 1e-15);
}

// Of twelve pairs three may be anything on either side.
TEST(Abba, InterruptedStepsDoNotCount) {
  Values logs(24, std::log(1.02));
  for (size_t i = 0; i < 5; ++i) logs[4 * i] += i % 2 == 0 ? 1 : -1;
  EXPECT_DOUBLE_EQ(1.02, judge(logs, {}).gain);
}

TEST(Abba, GainIsAOverB) {
  const AbbaResult result = judge(Values(16, std::log(2.0)), {});
  EXPECT_DOUBLE_EQ(2.0, result.gain);
  EXPECT_DOUBLE_EQ(2.0, result.interval.low);
  EXPECT_EQ(8, result.blocks);
  EXPECT_EQ(Verdict::kGain, result.verdict);
}

// Two values each half of the time: the interval of 8 blocks reaches about 0.7 of the way to them.
TEST(Abba, VerdictsFollowTheIntervalAndTheThreshold) {
  const auto around = [](double center, double spread) {
    Values logs;
    for (int block = 0; block < 8; ++block) {
      const double log = std::log(center + (block % 2 == 0 ? spread : -spread));
      logs.insert(logs.end(), {log, log});
    }
    return logs;
  };
  const auto verdict = [&](double center, double spread, double threshold) {
    return judge(around(center, spread), {.threshold = threshold}).verdict;
  };
  EXPECT_EQ(Verdict::kGain, verdict(1.02, 0.002, 0.01));
  EXPECT_EQ(Verdict::kRegression, verdict(0.98, 0.002, 0.01));
  EXPECT_EQ(Verdict::kNeutral, verdict(1.00, 0.002, 0.01));
  EXPECT_EQ(Verdict::kNeutral, verdict(1.02, 0.002, 0.05));
  EXPECT_EQ(Verdict::kInconclusive, verdict(1.01, 0.002, 0.01));
  EXPECT_EQ(Verdict::kInconclusive, verdict(0.99, 0.002, 0.01));
  EXPECT_EQ(Verdict::kInconclusive, verdict(1.00, 0.05, 0.01));
}

// 0.5 % is a difference for sure and below a threshold of 1 %.
TEST(Abba, WhatDiffersNeedNotReachTheThreshold) {
  const AbbaResult slower = judge(Values(16, std::log(0.995)), {});
  EXPECT_EQ(Verdict::kNeutral, slower.verdict);
  EXPECT_TRUE(differs(slower));
  EXPECT_FALSE(differs(judge(Values(16, 0.0), {})));
}

TEST(Abba, FewBlocksSayNothing) {
  const AbbaResult result = judge(Values(14, 0.5), {});
  EXPECT_FALSE(differs(result));
  EXPECT_EQ(Verdict::kInconclusive, result.verdict);
  EXPECT_EQ(8, result.blocks_needed);
  EXPECT_EQ(Verdict::kGain, judge(Values(16, 0.5), {}).verdict);
}

TEST(Abba, BlocksNeeded) {
  EXPECT_EQ(8, blocks_needed(0.005, 0.01));   // 1.96
  EXPECT_EQ(18, blocks_needed(0.015, 0.01));  // 17.64
  EXPECT_EQ(32, blocks_needed(0.02, 0.01));   // 31.36
  EXPECT_EQ(314, blocks_needed(0.02, 0.00316228));
  EXPECT_EQ(8, blocks_needed(0, 0.01));
}

// A machine whose segments vary by `noise` and that becomes slower by `drift` per segment, with
// both sides at the same steps; B takes 1 / gain of A's time.
AbbaResult simulate(test::Random& random, int64_t blocks, double noise, double drift, double gain,
                    uint64_t seed) {
  Values segments;
  for (int64_t s = 0; s < blocks * kSegmentsPerBlock; ++s) {
    const double speed = (1 + drift * static_cast<double>(s)) * (1 + noise * normal(random));
    segments.push_back(250 * speed / (side_of(s) == Side::kB ? gain : 1));
  }
  return judge(pair_logs(segments),
               {.threshold = 0.01, .bootstrap = {.level = 0.95, .resamples = 2000, .seed = seed}});
}

std::map<Verdict, int> verdicts(uint64_t seed, double noise, double drift, double gain) {
  test::Random random(seed);
  std::map<Verdict, int> counts;
  for (uint64_t i = 0; i < 1000; ++i) ++counts[simulate(random, 8, noise, drift, gain, i).verdict];
  return counts;
}

// The log of a block varies as its segments do: (s^2 / 2 + s^2 / 2)^(1/2).
TEST(AbbaSimulated, ARecipeAgainstItselfIsRarelyAGain) {
  uint64_t seed = 510;
  for (const double noise : {0.002, 0.005, 0.02, 0.05}) {
    for (const double drift : {0.0, 0.003, -0.003}) {
      auto counts = verdicts(seed++, noise, drift, 1.0);
      EXPECT_LE(counts[Verdict::kGain], 50) << noise << " " << drift;
      EXPECT_LE(counts[Verdict::kRegression], 50) << noise << " " << drift;
      // Quiet machines find that there is nothing.
      if (noise <= 0.005) {
        EXPECT_GE(counts[Verdict::kNeutral], 950) << noise << " " << drift;
      }
    }
  }
}

TEST(AbbaSimulated, TwoPercentAreFoundWithEightBlocks) {
  for (const double drift : {0.0, 0.003}) {
    EXPECT_GE(verdicts(530, 0.005, drift, 1.02)[Verdict::kGain], 950) << drift;
    EXPECT_GE(verdicts(531, 0.005, drift, 1 / 1.02)[Verdict::kRegression], 950) << drift;
  }
}

// Sixty counted steps a side of a machine whose speed wanders slowly and that interrupts some
// steps.
std::map<Verdict, int> verdicts_of_steps(uint64_t seed, int64_t blocks, int64_t steps,
                                         double gain) {
  constexpr double kNoise = 0.005, kWander = 0.02, kForgets = 0.05, kInterrupted = 0.02;
  test::Random random(seed);
  std::map<Verdict, int> counts;
  for (uint64_t i = 0; i < 500; ++i) {
    double wander = kWander * normal(random);
    Values segments;
    for (int64_t s = 0; s < blocks * kSegmentsPerBlock; ++s) {
      Values times;
      for (int64_t step = 0; step < steps; ++step) {
        wander = (1 - kForgets) * wander + std::sqrt(2 * kForgets) * kWander * normal(random);
        const double slow = random.uniform(0, 1) < kInterrupted ? random.uniform(0.1, 1) : 0;
        times.push_back(15 * (1 + wander + kNoise * normal(random)) * (1 + slow) /
                        (side_of(s) == Side::kB ? gain : 1));
      }
      segments.push_back(quantile(times, 0.5));
    }
    const AbbaResult r =
        judge(pair_logs(segments), {.bootstrap = {.level = 0.95, .resamples = 1000, .seed = i}});
    ++counts[r.verdict];
  }
  return counts;
}

TEST(AbbaSimulated, SixtyStepsASideOneByOneFindTwoPercent) {
  auto same = verdicts_of_steps(550, 30, 1, 1), slower = verdicts_of_steps(551, 30, 1, 1 / 1.02);
  EXPECT_GE(same[Verdict::kNeutral], 480);
  EXPECT_GE(slower[Verdict::kRegression], 480);
  EXPECT_LE(same[Verdict::kGain] + same[Verdict::kRegression], 5);
  // Fewer, longer segments are further apart in time.
  EXPECT_LT(verdicts_of_steps(551, 10, 3, 1 / 1.02)[Verdict::kRegression],
            slower[Verdict::kRegression]);
}

// The number that an inconclusive result prints: of experiments with that many blocks and a gain at
// the threshold, 80 % exclude 1.
TEST(AbbaSimulated, AsManyBlocksAsNeededSeeTheThreshold) {
  constexpr double kNoise = 0.02, kThreshold = 0.01;
  test::Random random(540);
  const double deviation = std::sqrt(1.195) * kNoise;  // bootstrap_test.cpp
  EXPECT_NEAR(deviation, simulate(random, 500, kNoise, 0, 1, 1).deviation, 0.2 * deviation);
  const int64_t blocks = blocks_needed(deviation, kThreshold);
  int found = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    found += simulate(random, blocks, kNoise, 0, 1 + kThreshold, i).interval.low > 1 ? 1 : 0;
  }
  EXPECT_NEAR(800, found, 60);  // standard deviation 13
}

}  // namespace
}  // namespace qstep::trainer::testing
