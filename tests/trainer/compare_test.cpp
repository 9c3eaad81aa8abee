// A comparison in this process, on a clock of the test's own: planted differences, emulated
// recipes, interruptions, losses.
#include "tests/support/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/normal_numbers.h"
#include "tests/trainer/run_records.h"
#include "tests/trainer/small_store.h"
#include "trainer/bench/compare_report.h"
#include "trainer/bench/compare_run.h"
#include "trainer/run/run_training.h"
#include "trainer/step/batch_sources.h"

namespace qstep::trainer::testing {
namespace {

using Json = nlohmann::ordered_json;

class Compare : public ::testing::Test {
 protected:
  // A step takes about a millisecond, which the tests do not look at; nor do those that compare
  // whole files where its time goes.
  CompareOptions options(std::vector<std::string> recipes, const std::string& name = "out") const {
    const std::vector<std::string> words{
        "model.n_layers=1",     "model.width=32",    "model.n_heads=2", "train.global_batch=2",
        "train.micro_batch=2",  "train.seq_len=16",  "train.steps=6",   "train.eval_every=0",
        "train.eval_batches=2", "optimizer.lr=0.01", "run.threads=1",   "model.ffn_width=64",
        "timing.level=off"};
    return {.recipes = std::move(recipes),
            .config = load_config("", words).config,
            .blocks = 8,
            .warmup = 0,
            .steps = 1,
            .folder = folder_ / name};
  }
  Json file(const std::string& name = "out") const {
    return Json::parse(text_of(folder_ / (name + "/compare.json")));
  }

  TemporaryFolder folder_;
};

// What a step takes on a machine of this noise where B takes `factor` of A's time, with the same
// bits in every process.
CompareSeams simulated(double noise, double factor) {
  CompareSeams seams;
  seams.step_ms = [=](double, const ComparePair& pair, int64_t segment) {
    test::Random random(1000 * pair.recipe + static_cast<uint64_t>(segment));
    return 10 * (1 + noise * normal(random)) * (side_of(segment) == Side::kB ? factor : 1);
  };
  return seams;
}

Json pair_of(const Json& json, size_t index) { return json.at("pairs").at(index); }

TEST_F(Compare, FindsAPlantedSlowdownAndNothingWhereThereIsNone) {
  run_compare(options({"fp32", "fp32"}, "slow"), simulated(0.002, 1.02));
  const Json slow = pair_of(file("slow"), 0);
  EXPECT_EQ("regression", slow.at("verdict"));
  EXPECT_NEAR(1 / 1.02, slow.at("gain"), 0.003);
  EXPECT_EQ(8, slow.at("blocks"));
  EXPECT_EQ(32u, slow.at("segments_ms").size());
  EXPECT_NEAR(10.0, slow.at("a_ms"), 0.03);
  EXPECT_NEAR(10.2, slow.at("b_ms"), 0.03);

  run_compare(options({"fp32", "fp32"}, "fast"), simulated(0.002, 1 / 1.02));
  EXPECT_EQ("gain", pair_of(file("fast"), 0).at("verdict"));
  run_compare(options({"fp32", "fp32"}, "same"), simulated(0.002, 1));
  EXPECT_EQ("neutral", pair_of(file("same"), 0).at("verdict"));
}

// Neighbouring steps on a processor; a side that is alone in memory is not built anew for each.
TEST_F(Compare, TheUsualSegmentsAreThoseOfTheMachine) {
  CompareOptions o = options({"fp32", "fp32"});
  o.blocks = o.warmup = o.steps = std::nullopt;
  run_compare(o, simulated(0.002, 1));
  EXPECT_EQ(1, file().at("steps"));
  EXPECT_EQ(0, file().at("warmup"));
  EXPECT_EQ(40, pair_of(file(), 0).at("blocks"));

  o.folder = folder_ / "one";
  o.blocks = 1;
  CompareSeams little = simulated(0.002, 1);
  little.available_bytes = 1;
  run_compare(o, little);
  EXPECT_EQ(20, file("one").at("steps"));
  EXPECT_EQ(10, file("one").at("warmup"));
}

TEST_F(Compare, SaysHowManyBlocksANoisyMachineNeeds) {
  const CompareOutcome outcome = run_compare(options({"fp32", "fp32"}), simulated(0.05, 1));
  const Json pair = pair_of(file(), 0);
  EXPECT_EQ("inconclusive", pair.at("verdict"));
  const double s = pair.at("deviation");
  EXPECT_EQ(std::ceil(std::pow(2.8 * s / 0.01, 2)), pair.at("blocks_needed"));
  const std::string text = compare_text(outcome.state, {});
  EXPECT_NE(std::string::npos, text.find(pair.at("blocks_needed").dump() + " blocks are needed"))
      << text;
  // A difference that may or may not reach the threshold is said as such.
  CompareOptions open = options({"fp32", "fp32"}, "open");
  open.abba.threshold = 0.04;
  const std::string open_text =
      compare_text(run_compare(open, simulated(0.02, 1.03)).state, open.abba);
  EXPECT_NE(std::string::npos, open_text.find("slower, perhaps by less than 4 %")) << open_text;
  CompareOptions few = options({"fp32", "fp32"}, "few");
  few.blocks = 7;
  const std::string few_text = compare_text(run_compare(few, simulated(0.002, 2)).state, {});
  EXPECT_NE(std::string::npos, few_text.find("inconclusive: fewer than 8 blocks")) << few_text;
}

TEST_F(Compare, AnEmulatedRecipeGetsNoVerdictOnItsSpeed) {
  const CompareOutcome outcome =
      run_compare(options({"fp32", "nvfp4-all-layers"}), simulated(0.002, 0.5));  // twice as fast
  const Json pair = pair_of(file(), 0);
  EXPECT_EQ("emulated", pair.at("verdict"));
  EXPECT_EQ(true, pair.at("emulated"));
  EXPECT_NEAR(2.0, pair.at("gain"), 0.01);
  for (const std::string& text :
       {compare_text(outcome.state, {}), text_of(folder_ / "out/compare.md")}) {
    EXPECT_NE(std::string::npos, text.find("emulated: the time says nothing about hardware"))
        << text;
    EXPECT_EQ(std::string::npos, text.find("faster")) << text;
  }
}

TEST_F(Compare, TheNoiseFloorIsTheBaselineAgainstItself) {
  CompareOptions o = options({"fp32", "bf16"});
  o.noise_floor = true;
  const CompareOutcome outcome = run_compare(o, simulated(0.002, 1));
  const Json json = file();
  EXPECT_EQ("fp32", pair_of(json, 0).at("b"));
  EXPECT_EQ(true, pair_of(json, 0).at("noise_floor"));
  EXPECT_EQ("bf16", pair_of(json, 1).at("b"));
  EXPECT_NE(std::string::npos, compare_text(outcome.state, {}).find("fp32 again"));
}

TEST_F(Compare, TheObserverIsTheBaselineWithoutTimingAgainstItselfWithIt) {
  CompareOptions o = options({"fp32"});
  o.observer = true;
  EXPECT_THROW(run_compare(o, simulated(0.002, 1)), ops::Error);  // timing.level is off
  o.config.timing.level = TimingLevel::kOps;
  const CompareOutcome outcome = run_compare(o, simulated(0.0002, 1.003));
  const Json pair = pair_of(file(), 0);
  EXPECT_EQ(true, pair.at("observer"));
  EXPECT_EQ(false, pair.at("noise_floor"));
  EXPECT_NEAR(1 / 1.003, pair.at("gain"), 0.0005);
  EXPECT_FALSE(pair.contains("prediction"));
  EXPECT_NE(std::string::npos, compare_text(outcome.state, {}).find("timing costs +0."))
      << compare_text(outcome.state, {});
  // The pairs of a folder are told apart.
  o.noise_floor = true;
  run_compare(o, simulated(0.0002, 1));
  EXPECT_EQ(2u, file().at("pairs").size());
  EXPECT_EQ(true, pair_of(file(), 1).at("noise_floor"));
}

// ---- interruptions ---------------------------------------------------------------------------

TEST_F(Compare, GoesOnWhereItWasStopped) {
  const CompareOptions whole = options({"fp32", "bf16", "nvfp4"}, "whole");
  ASSERT_EQ(ops::ExitCode::kOk, run_compare(whole, simulated(0.002, 1.02)).code);

  const CompareOptions parts = options({"fp32", "bf16", "nvfp4"}, "parts");
  const auto stopped_behind = [&](int steps) {
    CompareSeams seams = simulated(0.002, 1.02);
    seams.stop = [left = steps]() mutable { return --left < 0; };
    return run_compare(parts, seams).code;
  };
  ASSERT_EQ(ops::ExitCode::kPreempted, stopped_behind(15));  // in the middle of a block
  EXPECT_EQ(false, file("parts").at("finished"));
  EXPECT_EQ(14u, pair_of(file("parts"), 0).at("segments_ms").size());
  ASSERT_EQ(ops::ExitCode::kPreempted, stopped_behind(31));  // behind the first pair
  int64_t steps = 0;
  CompareSeams last = simulated(0.002, 1.02);
  const auto clock = last.step_ms;
  last.step_ms = [&](double ms, const ComparePair& pair, int64_t segment) {
    ++steps;
    return clock(ms, pair, segment);
  };
  ASSERT_EQ(ops::ExitCode::kOk, run_compare(parts, last).code);
  EXPECT_EQ(64 - (12 + 28), steps);  // whole blocks are kept, begun ones begin again
  EXPECT_EQ(file("whole").dump(), file("parts").dump());
  EXPECT_EQ(text_of(folder_ / "whole/compare.md"), text_of(folder_ / "parts/compare.md"));
}

TEST_F(Compare, MoreBlocksAreAddedToThoseThatAreThere) {
  CompareOptions o = options({"fp32", "bf16"});
  run_compare(o, simulated(0.002, 1));
  const Json before = pair_of(file(), 0).at("segments_ms");
  o.blocks = 9;
  o.abba.threshold = 0.05;
  run_compare(o, simulated(0.002, 1));
  Json after = pair_of(file(), 0).at("segments_ms");
  ASSERT_EQ(36u, after.size());
  after.erase(after.begin() + 32, after.end());
  EXPECT_EQ(before, after);
  EXPECT_EQ(0.05, file().at("threshold"));
}

TEST_F(Compare, AnotherComparisonInTheFolderIsRefused) {
  run_compare(options({"fp32", "bf16"}), simulated(0.002, 1));
  const auto refused = [&](const CompareOptions& o) {
    try {
      run_compare(o, simulated(0.002, 1));
    } catch (const ops::Error& error) {
      EXPECT_EQ(ops::ExitCode::kConfig, error.code());
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CompareOptions o = options({"fp32", "bf16"});
  o.config.train.seq_len = 8;
  EXPECT_NE(std::string::npos, refused(o).find("train.seq_len = 8")) << refused(o);
  o = options({"fp32", "nvfp4"});
  EXPECT_NE(std::string::npos, refused(o).find("fp32,bf16 -> fp32,nvfp4")) << refused(o);
  o = options({"fp32", "bf16"});
  o.steps = 2;
  EXPECT_NE(std::string::npos, refused(o).find("counted steps of a segment: 1 -> 2"));
  EXPECT_EQ(8, pair_of(file(), 0).at("blocks"));
}

TEST_F(Compare, OneAtATimeWhereMemoryIsShort) {
  CompareSeams seams = simulated(0.002, 1.02);
  seams.available_bytes = 1;
  run_compare(options({"fp32", "bf16"}, "short"), seams);
  run_compare(options({"fp32", "bf16"}, "enough"), simulated(0.002, 1.02));
  EXPECT_EQ(file("short").dump(), file("enough").dump());
}

TEST_F(Compare, WhatCannotBeComparedIsRefused) {
  CompareOptions o = options({"fp32"});
  EXPECT_THROW(run_compare(o), ops::Error);
  o = options({"fp32", "bf16"});
  o.seeds = 1;  // without data
  EXPECT_THROW(run_compare(o), ops::Error);
  o.seeds = 0;
  o.blocks = 0;
  EXPECT_THROW(run_compare(o), ops::Error);
}

// ---- prediction -------------------------------------------------------------------------------

TEST_F(Compare, SaysWhatTheGemmsAndQuantizersPredict) {
  CompareOptions o = options({"fp32", "nvfp4-all-layers"});
  o.config.timing.level = TimingLevel::kOps;
  CompareSeams seams = simulated(0.002, 1);
  seams.stop = [left = 22]() mutable { return --left < 0; };
  ASSERT_EQ(ops::ExitCode::kPreempted, run_compare(o, seams).code);
  EXPECT_EQ(10, pair_of(file(), 0).at("a_parts").at("segments"));  // those of five whole blocks
  const CompareOutcome outcome = run_compare(o, simulated(0.002, 1));
  const Json pair = pair_of(file(), 0);
  EXPECT_EQ(16, pair.at("a_parts").at("segments"));
  EXPECT_EQ(16, pair.at("b_parts").at("segments"));
  // One block: four linear layers, three passes each; quantizers on the one side alone.
  EXPECT_EQ(12u, pair.at("a_parts").at("sites").size());
  EXPECT_EQ(16u, pair.at("b_parts").at("sites").size());
  const Json& prediction = pair.at("prediction");
  ASSERT_EQ(4u, prediction.at("linears").size());
  double saved = 0;
  for (const Json& linear : prediction.at("linears")) {
    EXPECT_EQ(0, linear.at("quant_a_ms"));
    EXPECT_GT(linear.at("quant_b_ms"), 0);
    saved += linear.at("net_ms").get<double>();
  }
  const double a_ms = prediction.at("step_a_ms");
  EXPECT_NEAR(10, a_ms, 0.02);  // the simulated clock's
  EXPECT_DOUBLE_EQ(a_ms / (a_ms - saved), prediction.at("gain").get<double>());
  for (const std::string& text :
       {compare_text(outcome.state, {}), text_of(folder_ / "out/compare.md")}) {
    EXPECT_NE(std::string::npos, text.find("predicted gain")) << text;
  }
}

TEST_F(Compare, WithoutTimesOfCallsThereIsNoPrediction) {
  const CompareOutcome outcome = run_compare(options({"fp32", "bf16"}), simulated(0.002, 1));
  EXPECT_FALSE(pair_of(file(), 0).contains("prediction"));
  EXPECT_NE(std::string::npos,
            compare_text(outcome.state, {}).find("No prediction: it needs timing.level = \"ops\""));
}

// ---- data ------------------------------------------------------------------------------------

TEST_F(Compare, BothSidesSeeTheBatchesOfTheirTurn) {
  write_small_store(folder_ / "corpus.h5", 71);
  Config config = options({}).config;
  config.train.global_batch = 4;  // two micro-batches a step
  for (const bool synthetic : {true, false}) {
    config.data.train = synthetic ? "" : folder_ / "corpus.h5";
    const StepData data(config);
    Config finished = config;
    data.finish(finished);
    const auto all = data.from(finished, 0), later = data.from(finished, 3);
    std::vector<int32_t> tokens;
    for (int batch = 0; batch < 7; ++batch) {
      const MicroBatch b = all->next();
      tokens.assign(b.tokens.begin(), b.tokens.end());
    }
    const MicroBatch first = later->next();
    EXPECT_EQ(tokens, std::vector<int32_t>(first.tokens.begin(), first.tokens.end()));
  }
}

// ---- loss ------------------------------------------------------------------------------------

double trained_alone(Config config, const std::string& recipe, uint64_t seed,
                     const std::string& folder) {
  set_recipe(config, recipe);
  config.train.seed = seed;
  config.train.eval_every = config.train.steps;
  config.run.dir = folder;
  ::testing::internal::CaptureStdout();
  run_training(config);
  ::testing::internal::GetCapturedStdout();
  return rows_of(folder + "/metrics.jsonl", "eval").at(0).at("loss");
}

TEST_F(Compare, LossesAreThoseOfRunsAlone) {
  write_small_store(folder_ / "corpus.h5", 70);
  CompareOptions o = options({"fp32", "bf16"});
  o.config.data.train = folder_ / "corpus.h5";
  o.config.train.seed = 5;
  o.blocks = 0;
  o.seeds = 2;
  ::testing::internal::CaptureStdout();
  const CompareOutcome outcome = run_compare(o);
  EXPECT_EQ("", ::testing::internal::GetCapturedStdout());
  ASSERT_EQ(4u, outcome.state.losses.size());
  std::vector<double> gaps;
  for (const uint64_t seed : {5, 6}) {
    std::vector<double> losses;
    for (size_t i = 0; i < 2; ++i) {
      const std::string alone = folder_ / fmt::format("alone-{}-{}", i, seed);
      losses.push_back(trained_alone(o.config, o.recipes[i], seed, alone));
      ASSERT_NE(nullptr, outcome.state.loss(i, seed));
      EXPECT_EQ(losses[i], outcome.state.loss(i, seed)->loss);
      const std::string run = folder_ / fmt::format("out/runs/{}-{}-s{}", i, o.recipes[i], seed);
      EXPECT_TRUE(std::filesystem::exists(run + "/metrics.jsonl"));
      EXPECT_FALSE(std::filesystem::exists(run + "/checkpoints"));
      EXPECT_NE(std::string::npos, text_of(run + "/log.txt").find("finished at step 6 of 6"));
    }
    gaps.push_back(losses[1] - losses[0]);
  }
  EXPECT_NE(outcome.state.loss(0, 5)->loss, outcome.state.loss(0, 6)->loss);
  const Json gap = file().at("loss_gaps").at(1);
  EXPECT_DOUBLE_EQ((gaps[0] + gaps[1]) / 2, gap.at("gap"));
  // Of two values the standard error of the mean is half their distance.
  EXPECT_NEAR(std::abs(gaps[0] - gaps[1]) / 2, gap.at("standard_error").get<double>(), 1e-15);

  o.seeds = 3;  // more seeds go on
  EXPECT_EQ(6u, run_compare(o).state.losses.size());
  EXPECT_EQ(3, file().at("loss_gaps").at(1).at("seeds"));
}

TEST_F(Compare, LossesThatAreNotFiniteAreAResult) {
  write_small_store(folder_ / "corpus.h5", 70);
  CompareOptions o = options({"fp32", "bf16"});
  o.config.data.train = folder_ / "corpus.h5";
  o.config.optimizer.lr = 1e30;
  o.config.train.max_bad_steps = 1;
  o.blocks = 0;
  o.seeds = 1;
  const CompareOutcome outcome = run_compare(o);
  EXPECT_EQ(ops::ExitCode::kOk, outcome.code);
  EXPECT_EQ(1, loss_gap(outcome.state, 1).not_finite);
  EXPECT_TRUE(file().at("loss_gaps").at(1).at("gap").is_null());
  EXPECT_NE(std::string::npos, compare_text(outcome.state, {}).find("1 not finite"));
}

TEST(CompareState, GapsArePairedOverSeeds) {
  CompareState state;
  state.setting.recipes = {"bf16", "nvfp4"};
  state.losses = {{0, 1, 3.0}, {1, 1, 3.1}, {0, 2, 4.0}, {1, 2, 4.3},
                  {0, 3, 5.0}, {1, 3, {}},  {1, 4, 9.0}};
  const LossGap gap = loss_gap(state, 1);
  EXPECT_EQ(2, gap.seeds);
  EXPECT_EQ(1, gap.not_finite);
  EXPECT_DOUBLE_EQ((3.1 + 4.3 + 9.0) / 3, gap.loss);
  EXPECT_NEAR(0.2, gap.gap, 1e-12);
  EXPECT_NEAR(0.1, gap.standard_error, 1e-12);
  EXPECT_EQ(0.0, loss_gap(state, 0).gap);
}

TEST(CompareProgress, TimeLeftIsEachRecipesOwn) {
  CompareProgress progress(2);
  progress.plan(0, 100);
  progress.plan(1, 50);
  EXPECT_EQ(0.0, progress.share_done());
  progress.advance(0, 20, 10);  // 0.5 s each
  EXPECT_DOUBLE_EQ(80 * 0.5 + 50 * 0.5, progress.seconds_left());
  progress.advance(1, 10, 20);
  EXPECT_DOUBLE_EQ(80 * 0.5 + 40 * 2.0, progress.seconds_left());
  progress.skip(1, 20);
  EXPECT_DOUBLE_EQ(80 * 0.5 + 20 * 2.0, progress.seconds_left());
  EXPECT_DOUBLE_EQ(30.0 / 130.0, progress.share_done());
}

}  // namespace
}  // namespace qstep::trainer::testing
