// What a report says of a run, from files made up line by line.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/error.h"
#include "tests/trainer/report_testing.h"
#include "trainer/report/report_steps.h"

namespace qstep::trainer::report::testing {
namespace {

TEST(ReportStatistics, QuantilesAreLinearBetweenOrderStatistics) {
  const std::vector<double> sorted = {1, 2, 4, 8, 16};
  EXPECT_EQ(1, quantile(sorted, 0));
  EXPECT_EQ(4, quantile(sorted, 0.5));
  EXPECT_EQ(16, quantile(sorted, 1));
  EXPECT_DOUBLE_EQ(3, quantile(sorted, 0.375));
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
  const Json json = summary({4, 1, 16, 2, 8}, "_ms");
  EXPECT_EQ(5, json.at("n"));
  EXPECT_DOUBLE_EQ(6.2, json.at("mean_ms").get<double>());
  // Squares of the differences from 6.2: 27.04, 17.64, 4.84, 3.24, 96.04; their sum over 4.
  EXPECT_DOUBLE_EQ(std::sqrt(37.2), json.at("sd_ms").get<double>());
  EXPECT_EQ(4, json.at("p50_ms"));
  EXPECT_TRUE(summary({3}, "").at("sd").is_null());
  EXPECT_TRUE(summary({}, "").at("p50").is_null());
}

TEST(ReportStatistics, CurvesKeepEndsAndExtremes) {
  std::vector<int64_t> steps;
  std::vector<double> values;
  for (int64_t i = 0; i < 10000; ++i) {
    steps.push_back(i + 1);
    values.push_back(std::sin(static_cast<double>(i) * 0.01));
  }
  values[4321] = 77;
  values[8765] = -55;
  values[5000] = NAN;
  const Json json = curve(steps, values);
  const std::vector<int64_t> shown = json.at("step");
  EXPECT_LE(shown.size(), 903u);
  EXPECT_TRUE(std::is_sorted(shown.begin(), shown.end()));
  EXPECT_EQ(1, shown.front());
  EXPECT_EQ(10000, shown.back());
  const auto value_at = [&](int64_t step) {
    const auto at = std::find(shown.begin(), shown.end(), step);
    return at == shown.end() ? Json("not shown") : json.at("value")[at - shown.begin()];
  };
  EXPECT_EQ(77, value_at(4322));
  EXPECT_EQ(-55, value_at(8766));
  EXPECT_TRUE(value_at(5001).is_null()) << value_at(5001);
  EXPECT_EQ(10000, json.at("n_points"));
}

TEST(ReportSteps, TaggedStepsAreLeftOutAndListedAndSlowOnesAreNot) {
  MadeUpRun run;
  run.start(1);
  put_steps(run, 1, 20);
  run.save(20);
  put_steps(run, 21, 30);
  run.evaluation(30, 8.5);
  put_steps(run, 31, 40);
  run.start(41);
  put_steps(run, 41, 44);
  run.step(45, 5000);  // slow without a reason: data
  run.step(46, 101, R"(,"tags":["profiler"])");
  put_steps(run, 47, 60);
  const Json time = run.report().at("step_time");
  EXPECT_EQ(60, time.at("n_steps"));
  EXPECT_EQ(10, time.at("n_warm_up"));
  EXPECT_EQ(46, time.at("n"));
  EXPECT_EQ(5000, time.at("max_ms"));
  std::vector<std::pair<int64_t, std::string>> tagged;
  for (const Json& row : time.at("tagged")) tagged.emplace_back(row.at("step"), row.at("tags")[0]);
  const decltype(tagged) expected = {
      {21, "checkpoint"}, {31, "evaluation"}, {41, "resume"}, {46, "profiler"}};
  EXPECT_EQ(expected, tagged);
  std::vector<double> times;
  for (int64_t s = 11; s <= 60; ++s) {
    if (s == 21 || s == 31 || s == 41 || s == 46) continue;
    times.push_back(s == 45 ? 5000 : 100 + static_cast<double>(s % 7));
  }
  std::sort(times.begin(), times.end());
  EXPECT_DOUBLE_EQ((times[22] + times[23]) / 2, time.at("p50_ms").get<double>());
}

TEST(ReportSteps, ShortRunsWarmUpForAFifth) {
  MadeUpRun run;
  run.start(1);
  put_steps(run, 1, 14);
  EXPECT_EQ(2, run.report().at("step_time").at("n_warm_up"));
  EXPECT_EQ(12, run.report().at("step_time").at("n"));
}

TEST(ReportFiles, AKilledRunSaysSo) {
  MadeUpRun run;
  run.start(1);
  put_steps(run, 1, 20);
  run.line(R"({"type":"step","step":21,"lo)");
  const Json report = run.report();
  EXPECT_EQ(20, report.at("step_time").at("n_steps"));
  EXPECT_FALSE(report.at("header").at("ending").at("recorded"));
  EXPECT_EQ(run.path() + "/metrics.jsonl", report.at("header").at("ending").at("torn_files")[0]);
  EXPECT_NE(std::string::npos, report.at("verdict").get<std::string>().find("killed"))
      << report.at("verdict");
  EXPECT_TRUE(report.at("header").at("problems").empty());
}

TEST(ReportFiles, ABadLineIsNamedAndLeftOut) {
  MadeUpRun run;
  run.start(1);
  run.step(1, 100);
  run.line("}{ no JSON\n");
  run.line(R"({"type":"step","step":2,"step_ms":"fast"})"
           "\n");
  run.step(3, 100);
  const Json report = run.report();
  const std::vector<std::string> problems = report.at("header").at("problems");
  ASSERT_EQ(2u, problems.size());
  EXPECT_TRUE(problems[0].starts_with(run.path() + "/metrics.jsonl:3: not a JSON object"))
      << problems[0];
  EXPECT_EQ(run.path() + "/metrics.jsonl:4: step_ms: expected a number or null, found \"fast\"",
            problems[1]);
  EXPECT_EQ(2, report.at("step_time").at("n_steps"));
}

TEST(ReportFiles, OtherFoldersAndNewerSchemasAreRefused) {
  const data::TempDir folder;
  EXPECT_THROW(read_run(folder.str()), ops::Error);
  MadeUpRun run;
  run.line(R"({"type":"run","step":1,"schema":99})"
           "\n");
  EXPECT_THROW(run.read(), ops::Error);
}

void expect_reasons(const Json& json) {
  if (json.is_object() && json.contains("available") && !json.at("available").get<bool>()) {
    EXPECT_FALSE(json.at("reason").get<std::string>().empty()) << json;
  }
  for (const Json& part : json) {
    if (part.is_structured()) expect_reasons(part);
  }
}

TEST(Report, WhatIsMissingSaysWhy) {
  MadeUpRun run;
  run.start(1);
  const Json empty = run.report();
  EXPECT_FALSE(empty.at("step_time").at("available"));
  expect_reasons(empty);
  put_steps(run, 1, 30);
  const Json report = run.report();
  for (const char* key : {"header", "step_time", "breakdown", "comm", "precision", "throughput",
                          "ranks", "memory", "power", "goodput", "compare", "observer"}) {
    EXPECT_TRUE(report.at(key).contains("available")) << key;
  }
  EXPECT_FALSE(report.at("power").at("available"));
  expect_reasons(report);
}

TEST(ReportTime, BreakdownAddsUpAndThroughputIsThatOfTheMedianStep) {
  MadeUpRun run;
  run.start(1);
  for (int64_t s = 1; s <= 30; ++s) run.step(s, 200);
  const Json report = run.report(), breakdown = report.at("breakdown");
  EXPECT_EQ("breakdown_ms", breakdown.at("source"));
  EXPECT_EQ("gemm_nvfp4", breakdown.at("phases")[0].at("phase"));
  EXPECT_DOUBLE_EQ(0.5, breakdown.at("phases")[0].at("share").get<double>());
  EXPECT_DOUBLE_EQ(200, breakdown.at("sum_ms").get<double>());
  EXPECT_NEAR(0, breakdown.at("worst_sum_error").get<double>(), 1e-15);
  EXPECT_DOUBLE_EQ(512 / 0.2, report.at("throughput").at("tokens_per_s").get<double>());
  EXPECT_DOUBLE_EQ(512 / 0.2 * 6000,
                   report.at("throughput").at("flops_per_s_causal").get<double>());
}

// Llama-3-8B at 8192 tokens and 11000 tokens/s on one H200: step_time_report.md section 5.
constexpr const char* kLlamaInFp8 = R"(
[model]
preset = "llama-8b"
[train]
seq_len = 8192
global_batch = 1
micro_batch = 1
[precision]
recipe = "fp8-current"
)";
constexpr double kLlamaStepMs = 8192 / 11000.0 * 1e3;

TEST(ReportThroughput, UtilisationIsThatOfTheRecordedPeaks) {
  MadeUpRun run;
  run.file("config.toml", kLlamaInFp8);
  run.start_on_h200();
  for (int64_t s = 1; s <= 30; ++s) run.step(s, kLlamaStepMs);
  const Json report = run.report(), throughput = report.at("throughput");
  const auto value = [&](const char* key) { return throughput.at(key).at("value").get<double>(); };
  EXPECT_NEAR(57.91e9, throughput.at("flops_per_token_full").get<double>(), 0.005e9);
  EXPECT_NEAR(566.2e12, throughput.at("flops_per_s_causal_per_rank").get<double>(), 0.1e12);
  EXPECT_NEAR(0.572, value("mfu"), 0.0005);
  EXPECT_NEAR(0.572 * 57.91 / 51.47, throughput.at("mfu").at("full").get<double>(), 0.001);
  EXPECT_NEAR(0.339, value("sol"), 0.0005);
  EXPECT_NEAR(0.572 * (51.47 + 6.44 / 6) / 51.47, value("hfu"), 0.001);
  EXPECT_GT(value("sol_mem"), value("sol"));
  EXPECT_EQ("fp8", throughput.at("mfu").at("by_format")[0].at("format"));
  EXPECT_NEAR(0.286, throughput.at("mfu").at("by_format")[0].at("value").get<double>(), 0.0005);
  const Json& gain = throughput.at("largest_gain");
  EXPECT_NEAR(1.69, gain.at("here").get<double>(), 0.005);
  EXPECT_EQ("h200", gain.at("elsewhere")[0].at("machine"));
  EXPECT_EQ(gain.at("here"), gain.at("elsewhere")[0].at("value"));
  EXPECT_NE(std::string::npos, report.at("verdict").get<std::string>().find("SOL 33.9 %"))
      << report.at("verdict");
}

TEST(ReportThroughput, WithoutPeaksSharesSayWhy) {
  MadeUpRun unknown, older;
  unknown.file("config.toml", kLlamaInFp8);
  older.file("config.toml", kLlamaInFp8);
  unknown.start_on_h200("{}");
  older.start(1);
  for (MadeUpRun* run : {&unknown, &older}) put_steps(*run, 1, 30);
  const Json a = unknown.report().at("throughput"), b = older.report().at("throughput");
  for (const char* key : {"mfu", "hfu", "sol", "sol_mem"}) {
    EXPECT_FALSE(a.at(key).at("available")) << key;
    EXPECT_NE(std::string::npos, a.at(key).at("reason").get<std::string>().find("not in the table"))
        << a.at(key);
    EXPECT_NE(std::string::npos, b.at(key).at("reason").get<std::string>().find("older qstep"))
        << b.at(key);
  }
  EXPECT_GT(a.at("flops_per_s_causal_per_rank"), 0);
  // What the products allow elsewhere needs no peak of this machine.
  EXPECT_TRUE(a.at("largest_gain").at("here").is_null());
  EXPECT_NEAR(1.69, a.at("largest_gain").at("elsewhere")[0].at("value").get<double>(), 0.005);
}

TEST(ReportGemms, AreHeldAgainstThePeakOfWhatRan) {
  MadeUpRun run;
  run.start_on_h200();
  put_steps(run, 1, 40);
  std::string rows;
  const auto gemm = [&](int step, const char* op, const char* format, const char* runs_as) {
    // 10 steps of one call of 2e12 flops in 4 ms: 500 TFLOP/s.
    rows += fmt::format(
        R"({{"type":"gemm","step":{},"steps":10,"rank":0,"layer":3,"op":"{}","pass":"fprop",)"
        R"("m":10000,"n":10000,"k":10000,"format_a":"{}","format_b":"{}","emulated":false,)"
        R"("runs_as":"{}","calls":10,"ms":40}})"
        "\n",
        step, op, format, format, runs_as);
  };
  for (int step = 10; step <= 40; step += 10) {
    gemm(step, "up", "fp8-e4m3", "fp8");
    gemm(step, "down", "bf16", "bf16");
    gemm(step, "qkv", "nvfp4", "bf16");  // emulated: at the rate of what ran
  }
  run.file("metrics.rank00000.jsonl", rows);
  const Json gemms = run.report().at("precision").at("gemms");
  EXPECT_EQ("peak", gemms.at("against"));
  std::map<std::string, Json> kinds;
  for (const Json& row : gemms.at("kinds")) kinds[row.at("op")] = row;
  EXPECT_EQ("up", gemms.at("kinds")[0].at("op"));  // loses most
  EXPECT_DOUBLE_EQ(500.0 / 1979, kinds["up"].at("share_of_reference").get<double>());
  EXPECT_DOUBLE_EQ(500.0 / 989, kinds["down"].at("share_of_reference").get<double>());
  EXPECT_EQ(kinds["down"].at("share_of_reference"), kinds["qkv"].at("share_of_reference"));
  EXPECT_NEAR(4 - 2e12 / 1979e12 * 1e3, kinds["up"].at("lost_ms").get<double>(), 1e-12);
}

TEST(ReportRanks, TheSlowRankIsNamedAndSumsAreMeansOfAStep) {
  MadeUpRun run;
  run.start(1, "nvfp4", true, 2);
  put_steps(run, 1, 40);
  for (int rank = 0; rank < 2; ++rank) {
    std::string rows = fmt::format(
        R"({{"type":"rank_run","step":1,"rank":{},"host":"node{}","tensor_rank":0,"data_rank":{}}})"
        "\n"
        R"({{"type":"memory","step":1,"rank":{},"owner":"weights","bytes":{}}})"
        "\n",
        rank, rank, rank, rank, 1000 + rank);
    for (int step = 10; step <= 40; step += 10) {
      rows += fmt::format(
          R"({{"type":"phase","step":{0},"steps":10,"rank":{1},"phase":"attn","layer":3,"pass":"forward","ms":{2},"calls":10}})"
          "\n"
          R"({{"type":"phase","step":{0},"steps":10,"rank":{1},"phase":"grad_reduce","layer":-1,"pass":"none","ms":{3},"calls":10}})"
          "\n"
          R"({{"type":"gemm","step":{0},"steps":10,"rank":{1},"layer":3,"op":"up","pass":"fprop","m":100,"n":200,"k":300,"format_a":"bf16","format_b":"bf16","emulated":false,"calls":20,"ms":40,"tflops":0}})"
          "\n"
          R"({{"type":"gemm","step":{0},"steps":10,"rank":{1},"layer":3,"op":"down","pass":"fprop","m":100,"n":200,"k":300,"format_a":"bf16","format_b":"bf16","emulated":false,"calls":20,"ms":80,"tflops":0}})"
          "\n"
          R"({{"type":"comm","step":{0},"steps":10,"rank":{1},"group":"data","op":"reduce_scatter","calls":30,"bytes":1000,"total_ms":{4},"exposed_ms":10}})"
          "\n",
          step, rank, rank == 1 ? 550 : 500, rank == 1 ? 0 : 50, rank == 1 ? 40 : 60);
    }
    run.file(fmt::format("metrics.rank{:05}.jsonl", rank), rows);
  }
  const Json report = run.report();
  const Json& ranks = report.at("ranks");
  EXPECT_EQ(1, ranks.at("straggler"));
  EXPECT_DOUBLE_EQ(50.0 / 55, ranks.at("ranks")[1].at("score").get<double>());
  EXPECT_EQ("node1", ranks.at("ranks")[1].at("host"));
  EXPECT_EQ(3, ranks.at("ranks")[1].at("slowest_windows"));  // the first window is warm-up
  EXPECT_EQ(3, ranks.at("ranks")[1].at("windows"));

  const Json& layers = report.at("breakdown").at("by_layer").at("layers");
  EXPECT_EQ(3, layers[1].at("layer"));
  EXPECT_DOUBLE_EQ(52.5, layers[1].at("ms").get<double>());

  // Two calls of 2 100 200 300 flops a step in 4 ms, against the same in 8 ms.
  const Json& kinds = report.at("precision").at("gemms").at("kinds");
  EXPECT_EQ("down", kinds[0].at("op"));
  EXPECT_DOUBLE_EQ(8, kinds[0].at("ms").get<double>());
  EXPECT_DOUBLE_EQ(2, kinds[0].at("calls").get<double>());
  EXPECT_DOUBLE_EQ(3e9, kinds[0].at("flops_per_s").get<double>());
  EXPECT_DOUBLE_EQ(0.5, kinds[0].at("share_of_reference").get<double>());
  EXPECT_DOUBLE_EQ(4, kinds[0].at("lost_ms").get<double>());
  EXPECT_DOUBLE_EQ(0, kinds[1].at("lost_ms").get<double>());

  const Json& comm = report.at("comm").at("collectives").at("rows")[0];
  EXPECT_DOUBLE_EQ(5, comm.at("total_ms").get<double>());
  EXPECT_DOUBLE_EQ(1, comm.at("exposed_ms").get<double>());
  EXPECT_DOUBLE_EQ(0.8, comm.at("overlap").get<double>());
  EXPECT_DOUBLE_EQ(1, comm.at("skew_ms").get<double>());  // rank 0: 6 of 4, rank 1: none
  EXPECT_DOUBLE_EQ(3, comm.at("calls").get<double>());

  // Rank 0: 1 and 5 ms a step, rank 1: 1 and 0.
  const Json& twice = report.at("comm").at("exposed_twice");
  EXPECT_DOUBLE_EQ(1, twice.at("intervals_ms").get<double>());
  EXPECT_DOUBLE_EQ(2.5, twice.at("waits_ms").get<double>());
  const double step_ms = report.at("step_time").at("mean_ms");
  EXPECT_DOUBLE_EQ(4 / step_ms, twice.at("worst_difference_share").get<double>());

  const Json& owner = report.at("memory").at("by_owner").at("owners")[0];
  EXPECT_EQ(1000, owner.at("min_bytes"));
  EXPECT_EQ(1001, owner.at("max_bytes"));
}

TEST(ReportGoodput, BucketsAddUpToTheWallTime) {
  MadeUpRun run;
  run.start(1, "bf16", false, 1, kStartTime);
  put_steps(run, 1, 20);
  run.evaluation(20, 8.5, 400);
  run.save(20, 300);
  run.start(21, "bf16", false, 1, kStartTime + 10);
  put_steps(run, 21, 40);
  run.step(41, 100, R"(,"x":1)");
  run.ends(20);
  const Json goodput = run.report().at("goodput");
  EXPECT_EQ(20, goodput.at("wall_s"));
  double sum = 0;
  std::map<std::string, double> bucket;
  for (const Json& b : goodput.at("buckets")) {
    sum += b.at("s").get<double>();
    bucket[b.at("bucket")] = b.at("s");
  }
  EXPECT_NEAR(20, sum, 1e-12);
  EXPECT_NEAR(0.041, bucket.at("data_stall"), 1e-12);
  EXPECT_NEAR(0.4, bucket.at("evaluation"), 1e-12);
  EXPECT_NEAR(0.3, bucket.at("checkpoint"), 1e-12);
  double first_start = 0.7;
  for (int64_t s = 1; s <= 20; ++s) first_start += 0.001 * (100 + static_cast<double>(s % 7));
  EXPECT_NEAR(10 - first_start, bucket.at("restarts"), 1e-9);
}

TEST(ReportCompare, LossAtEqualTokensAndNoSpeedVerdictOfEmulation) {
  MadeUpRun a("bf16"), b("nvfp4");
  a.start(1, "bf16", false);
  b.start(1, "nvfp4", true);
  for (int64_t s = 1; s <= 20; ++s) {
    a.step(s, 100);
    b.step(s, 150);
  }
  a.evaluation(10, 8.0);
  a.evaluation(20, 7.5);
  b.evaluation(10, 8.25);
  const std::vector<report::Run> runs = {a.read(), b.read()};
  const Json json = report_json(runs);
  const Json& compare = json.at("runs")[1].at("compare");
  EXPECT_DOUBLE_EQ(1.5, compare.at("step_time_ratio").get<double>());
  EXPECT_EQ(5120, compare.at("loss").at("tokens"));
  EXPECT_DOUBLE_EQ(0.25, compare.at("loss").at("gap").get<double>());
  EXPECT_FALSE(compare.at("speed_verdict").at("available"));
  EXPECT_FALSE(json.at("runs")[0].at("compare").at("available"));
  EXPECT_NE(std::string::npos, json.at("verdict").get<std::string>().find("emulated"));
}

TEST(Report, TenThousandStepsStaySmall) {
  MadeUpRun run;
  run.start(1);
  for (int64_t s = 1; s <= 10000; ++s)
    run.step(s, 100.123456789 + static_cast<double>(s * s % 977));
  const Json report = run.report();
  EXPECT_EQ(9990, report.at("step_time").at("n"));
  EXPECT_LT(report.dump().size(), 300000u);
}

}  // namespace
}  // namespace qstep::trainer::report::testing
