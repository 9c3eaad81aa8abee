// qstep compare as it is called: output, refusals, signals while it trains.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/process.h"
#include "tests/trainer/run_records.h"
#include "tests/trainer/small_store.h"

namespace qstep::trainer::testing {
namespace {

using Json = nlohmann::json;

class CompareCommand : public ::testing::Test {
 protected:
  Words words(const std::string& out, const Words& more) const {
    Words all{"compare",
              "model.n_layers=1",
              "model.width=32",
              "model.n_heads=2",
              "train.global_batch=2",
              "train.micro_batch=2",
              "train.seq_len=16",
              "train.eval_every=0",
              "train.eval_batches=2",
              "run.threads=1",
              "-o",
              folder_ / out};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  int run(const Words& all) const { return Process(all, log()).wait(); }
  std::string log() const { return folder_ / "log.txt"; }
  Json file(const std::string& out) const {
    return Json::parse(text_of(folder_ / (out + "/compare.json")));
  }

  TemporaryFolder folder_;
};

TEST_F(CompareCommand, PrintsATableAndWritesFiles) {
  ASSERT_EQ(0, run(words("out", {"--recipes", "fp32,nvfp4-all-layers", "--blocks", "2", "--steps",
                                 "2", "--warmup", "1"})))
      << text_of(log());
  const std::string text = text_of(log());
  for (const char* part :
       {"recipe", "fp32", "nvfp4", "emulated: the time says nothing", "fp32 in turn",
        "segments of 2 steps behind 1 of warm-up", "of memory together"}) {
    EXPECT_NE(std::string::npos, text.find(part)) << part << "\n" << text;
  }
  const Json json = file("out");
  EXPECT_EQ("compare", json.at("type"));
  EXPECT_EQ(true, json.at("finished"));
  EXPECT_EQ(2, json.at("pairs").at(0).at("block_gains").size());
  for (const double ms : json.at("pairs").at(0).at("segments_ms")) EXPECT_GT(ms, 0);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out/compare.md"));
  const Json report = Json::parse(text_of(folder_ / "out/report/report.json"));
  const Json& pair = report.at("comparisons").at(0).at("pairs").at(0);
  EXPECT_EQ(json.at("pairs").at(0).at("gain"), pair.at("gain"));
  EXPECT_EQ(true, pair.at("prediction").at("available"));
  EXPECT_NE(std::string::npos,
            report.at("verdict").get<std::string>().find("nvfp4-all-layers (emulated): "));
  EXPECT_TRUE(report.at("runs").empty());
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out/report/report.html"));
}

TEST_F(CompareCommand, TheConfigurationMayFollowTheRecipes) {
  Words all{"compare", "--recipes", "fp32,bf16"};
  const Words rest = words("out", {"--blocks", "1", "--steps", "1", "--warmup", "0", "--json"});
  all.insert(all.end(), rest.begin() + 1, rest.end());
  ASSERT_EQ(0, run(all)) << text_of(log());
  EXPECT_EQ(2u, file("out").at("recipes").size());
}

TEST_F(CompareCommand, WhatItRefuses) {
  EXPECT_EQ(20, run(words("out", {"--recipes", "bf16"})));
  EXPECT_EQ(20, run(words("out", {"--recipes", "bf16,no-such"})));
  EXPECT_NE(std::string::npos, text_of(log()).find("no-such")) << text_of(log());
  EXPECT_EQ(20, run(words("out", {"--seeds", "1"})));
  EXPECT_NE(std::string::npos, text_of(log()).find("data.train")) << text_of(log());
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"}) {
    ::setenv(name, "0", 1);
  }
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}) {
    ::setenv(name, "2", 1);
  }
  EXPECT_EQ(20, run(words("out", {"--recipes", "bf16,fp32"})));
  EXPECT_NE(std::string::npos, text_of(log()).find("one process")) << text_of(log());
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
                           "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}) {
    ::unsetenv(name);
  }
}

TEST_F(CompareCommand, AStopBetweenSegmentsKeepsThem) {
  const Words segments{"--recipes", "fp32,bf16", "--steps", "2", "--warmup", "1"};
  Words more = segments;
  more.insert(more.end(), {"--blocks", "100000"});
  Process first(words("out", more), log());
  const auto measured = [&] {
    const Json json = Json::parse(text_of(folder_ / "out/compare.json"), nullptr, false);
    return json.is_discarded() ? 0 : json.at("pairs").at(0).at("segments_ms").size();
  };
  first.wait_for([&] { return measured() >= 9; });
  first.signal(SIGINT);
  ASSERT_EQ(10, first.wait()) << text_of(log());
  EXPECT_EQ(false, file("out").at("finished"));
  const Json before = file("out").at("pairs").at(0).at("block_gains");
  ASSERT_LE(2u, before.size());

  more = segments;
  more.insert(more.end(), {"--blocks", "2"});  // which is there
  ASSERT_EQ(0, run(words("out", more))) << text_of(log());
  EXPECT_EQ(true, file("out").at("finished"));
  EXPECT_EQ(before, file("out").at("pairs").at(0).at("block_gains"));
}

TEST_F(CompareCommand, AStopWhileItTrainsLosesNothing) {
  write_small_store(folder_ / "corpus.h5", 70);
  const Words more{"--recipes",
                   "fp32,bf16",
                   "--blocks",
                   "0",
                   "--seeds",
                   "2",
                   "data.train=" + (folder_ / "corpus.h5"),
                   "train.steps=400"};
  ASSERT_EQ(0, run(words("whole", more))) << text_of(log());

  Process first(words("parts", more), log());
  const std::string metrics = folder_ / "parts/runs/1-bf16-s1/metrics.jsonl";
  first.wait_for([&] { return rows_of(metrics, "step").size() >= 5; });
  first.signal(SIGTERM);
  ASSERT_EQ(10, first.wait()) << text_of(log());
  EXPECT_EQ(false, file("parts").at("finished"));
  EXPECT_EQ(1, file("parts").at("losses").size());
  const size_t before = rows_of(metrics, "step").size();
  ASSERT_LT(before, 400u);

  ASSERT_EQ(0, run(words("parts", more))) << text_of(log());
  // It went on from the checkpoint: a second start in the same file, no step twice.
  EXPECT_EQ(2u, rows_of(metrics, "run").size());
  EXPECT_EQ(400u, rows_of(metrics, "step").size());
  EXPECT_EQ(file("whole").at("losses"), file("parts").at("losses"));
  EXPECT_EQ(file("whole").at("loss_gaps"), file("parts").at("loss_gaps"));
}

}  // namespace
}  // namespace qstep::trainer::testing
