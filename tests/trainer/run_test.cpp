// Whole runs of the qstep executable: resume, what is refused, and what a run leaves behind.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/test_name.h"
#include "tests/trainer/run_fixture.h"

namespace qstep::trainer::testing {
namespace {

class Resume : public Run,
               public ::testing::WithParamInterface<std::tuple<std::string, std::string>> {};

// Stopped at a step that the seed chooses by losing everything behind a checkpoint, as a kill does.
TEST_P(Resume, ContinuesWithTheSameBits) {
  const auto& [recipe, reduction] = GetParam();
  Words kind{"precision.recipe=" + recipe, "parallel.reduction=" + reduction, "run.save_every=1"};
  if (recipe != "fp32" && recipe != "bf16") {  // blocks of 16 and 32 elements
    kind.insert(kind.end(), {"model.width=32", "model.n_heads=2"});
  }
  ASSERT_EQ(0, run(train("whole", kind))) << text_of(log());
  test::Random random(71);
  for (int trial = 0; trial < 2; ++trial) {
    const int64_t stop = random.integer(1, 11);
    const std::string name = "part" + std::to_string(trial);
    std::filesystem::copy(dir("whole"), dir(name), std::filesystem::copy_options::recursive);
    for (int64_t step = stop + 1; step <= 12; ++step) {
      std::filesystem::remove_all(checkpoint(name, step));
    }
    ASSERT_EQ(0, run(train(name, kind))) << text_of(log());
    SCOPED_TRACE("stopped at step " + std::to_string(stop));
    expect_same_run("whole", name, 12);
  }
}

// nvfp4-late-bf16 switches at step 10, fp8-delayed has state of its own.
INSTANTIATE_TEST_SUITE_P(
    Recipes, Resume,
    ::testing::Combine(::testing::Values("fp32", "bf16", "nvfp4-late-bf16", "fp8-delayed"),
                       ::testing::Values("tree", "rank")),
    [](const auto& test) {
      return test::test_name(std::get<0>(test.param) + "_" + std::get<1>(test.param));
    });

// Every step row against the peaks of the run's first row: SOL is at most 1, as no step multiplies
// faster than the best that was measured.
TEST_F(Run, StepsAreHeldAgainstTheMeasuredPeak) {
  ASSERT_EQ(0,
            run(train("measured", {"precision.recipe=nvfp4", "model.width=32", "model.n_heads=2"})))
      << text_of(log());
  const Json start = rows_of(metrics("measured"), "run").at(0);
  EXPECT_EQ("cpu", start.at("peak_machine"));
  const double peak = start.at("peak_flops_per_s").at("bf16");
  for (const Json& row : rows_of(metrics("measured"), "step")) {
    const double flops = row.at("model_flops_per_s");
    EXPECT_DOUBLE_EQ(flops * 1e-12, row.at("tflops_causal").get<double>());
    EXPECT_DOUBLE_EQ(flops / peak, row.at("mfu_bf16").get<double>());
    // Emulated: everything runs in BF16.
    EXPECT_DOUBLE_EQ(row.at("mfu_bf16").get<double>(), row.at("sol").get<double>());
    EXPECT_GT(row.at("sol"), 0);
    EXPECT_LE(row.at("sol"), 1);
  }
  EXPECT_NE(std::string::npos, text_of(log()).find(" %bf16 | sol "));
}

TEST_F(Run, APeakCanBeGivenOrLeftOut) {
  ASSERT_EQ(0, run(train("given", {"timing.peak=0.001"}))) << text_of(log());
  const Json row = rows_of(metrics("given"), "step").at(5);
  EXPECT_NEAR(row.at("tflops_causal").get<double>() / 0.001, row.at("sol").get<double>(),
              1e-9 * row.at("sol").get<double>());
  ASSERT_EQ(0, run(train("off", {"timing.peak=off"}))) << text_of(log());
  const Json start = rows_of(metrics("off"), "run").at(0);
  EXPECT_TRUE(start.at("peak_flops_per_s").empty());
  for (const Json& step : rows_of(metrics("off"), "step")) {
    EXPECT_TRUE(step.at("mfu_bf16").is_null());
    EXPECT_TRUE(step.at("sol").is_null());
    EXPECT_GT(step.at("tflops_causal"), 0);
  }
  EXPECT_NE(std::string::npos, text_of(log()).find("| mfu n/a | sol n/a |"));
  EXPECT_EQ(20, run(train("wrong", {"timing.peak=fast"})));
}

class LedgerOfARun : public Run {
 protected:
  Words counted(const std::string& name, const std::string& every) const {
    return train(name,
                 {"precision.recipe=nvfp4-all-layers", "precision.ledger_every=" + every,
                  "model.width=64", "model.n_heads=2", "model.n_kv_heads=2", "run.save_every=1"});
  }
  std::string ledger(const std::string& name) const { return dir(name) + "/ledger.jsonl"; }
};

TEST_F(LedgerOfARun, IsTheSameBehindAResumeAndLeavesTheRunAsItIs) {
  ASSERT_EQ(0, run(counted("whole", "3"))) << text_of(log());
  EXPECT_NE(std::string::npos, text_of(log()).find("nvfp4-all-layers emulated")) << text_of(log());
  EXPECT_EQ(true, rows_of(metrics("whole"), "run").at(0).at("emulated"));
  std::filesystem::copy(dir("whole"), dir("part"), std::filesystem::copy_options::recursive);
  for (int64_t step = 8; step <= 12; ++step) std::filesystem::remove_all(checkpoint("part", step));
  ASSERT_EQ(0, run(counted("part", "3"))) << text_of(log());
  EXPECT_EQ(text_of(ledger("whole")), text_of(ledger("part")));

  ASSERT_EQ(0, run(counted("off", "0"))) << text_of(log());
  EXPECT_FALSE(std::filesystem::exists(ledger("off")));
  expect_same_run("whole", "off", 12);
}

TEST_F(LedgerOfARun, IsShown) {
  ASSERT_EQ(0, run(counted("run", "3"))) << text_of(log());
  const auto output = [&](const Words& words, int code) {
    Words all{"recipe", "ledger", dir("run")};
    all.insert(all.end(), words.begin(), words.end());
    EXPECT_EQ(code, run(all)) << text_of(log());
    return text_of(log());
  };
  const std::string table = output({"--sort", "snr"}, 0);
  for (const char* text : {"step 12; counted: 1, 3, 6, 9, 12", "nvfp4 1x16, emulated",
                           "blocks.1.down", "dy_wgrad", "snr, step 1 -> 12"}) {
    EXPECT_NE(std::string::npos, table.find(text)) << text << table;
  }
  const Json json = Json::parse(output({"--json", "--layer", "*.qkv", "--step", "3"}, 0));
  EXPECT_EQ(3, json.at("step"));
  ASSERT_EQ(2u * 6u, json.at("rows").size());
  for (const Json& row : json.at("rows")) EXPECT_EQ(true, row.at("emulated"));
  EXPECT_EQ(6u, json.at("operands").size());

  EXPECT_NE(std::string::npos, output({"--step", "4"}, 20).find("choose one of 1, 3, 6, 9, 12"));
  EXPECT_NE(std::string::npos, output({"--layer", "none"}, 20).find("like blocks.0.qkv"));
  std::filesystem::remove(ledger("run"));
  EXPECT_NE(std::string::npos, output({}, 20).find("precision.ledger_every"));
}

TEST_F(Run, RefusesAFolderInUse) {
  Process first(train("run", {"train.steps=1000000", "train.eval_every=0"}), log());
  wait_for_rows(first, "run", 1);
  EXPECT_EQ(20, Process(train("run"), folder_ / "second.txt").wait());
  EXPECT_NE(std::string::npos, text_of(folder_ / "second.txt").find(dir("run")));
  first.signal(SIGTERM);
  EXPECT_EQ(10, first.wait()) << text_of(log());
}

TEST_F(Run, RefusesAnotherTokenizerCorpusOrModel) {
  ASSERT_EQ(0, run(train("run", {"train.steps=2", "optimizer.warmup_steps=0"}))) << text_of(log());
  const std::string before = text_of(checkpoint("run", 2) + "/manifest.json");

  write_small_store(folder_ / "foreign.h5", 70, "foreign");
  EXPECT_EQ(21, run(train("run", {"data.train=" + (folder_ / "foreign.h5")}))) << text_of(log());
  EXPECT_EQ(21, exit_reason("run").at("code"));
  EXPECT_NE(std::string::npos, text_of(log()).find("tokenizer"));

  write_small_store(folder_ / "other.h5", 72);
  const std::string other = "data.train=" + (folder_ / "other.h5");
  EXPECT_EQ(21, run(train("run", {other}))) << text_of(log());
  EXPECT_EQ(0, run(train("run", {other, "data.allow_change=true", "train.steps=3"})))
      << text_of(log());

  EXPECT_EQ(20, run(train("run", {"model.width=36"}))) << text_of(log());
  EXPECT_EQ(20, exit_reason("run").at("code"));
  EXPECT_EQ(20, run(train("run", {"run.resume=never"}))) << text_of(log());
  EXPECT_EQ(before, text_of(checkpoint("run", 2) + "/manifest.json"));
}

// The same name with other numbers is an accident, another name a decision; descriptions do not
// count, and a checkpoint needs no file.
TEST_F(Run, RefusesARecipeThatChangedUnderItsName) {
  const std::string mine = folder_ / "mine.toml", other = folder_ / "other.toml";
  const auto write = [](const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  };
  write(mine, "measured = \"not yet\"\n");
  const Words with_mine{"precision.recipe=" + mine, "optimizer.warmup_steps=0"};
  const auto steps = [](Words words, int64_t n) {
    words.push_back(fmt::format("train.steps={}", n));
    return words;
  };
  ASSERT_EQ(0, run(train("run", steps(with_mine, 2)))) << text_of(log());
  EXPECT_EQ("measured = \"not yet\"\ncompute = \"bf16\"\n", text_of(dir("run") + "/recipe.toml"));

  write(mine, "measured = \"today\"\n");
  EXPECT_EQ(0, run(train("run", steps(with_mine, 3)))) << text_of(log());
  write(mine, "compute = \"fp32\"\n");
  EXPECT_EQ(20, run(train("run", steps(with_mine, 4)))) << text_of(log());
  EXPECT_NE(std::string::npos,
            text_of(log()).find("  - compute = \"bf16\"\n  + compute = \"fp32\""))
      << text_of(log());

  write(other, "compute = \"fp32\"\n");
  EXPECT_EQ(0,
            run(train("run", steps({"precision.recipe=" + other, "optimizer.warmup_steps=0"}, 4))))
      << text_of(log());
  std::filesystem::remove(mine);
  std::filesystem::remove(other);
  EXPECT_EQ(0, run({"eval", "--checkpoint", dir("run"), "--batches", "1"})) << text_of(log());
}

// The same command can be started again: it goes on from what it has made, not from where it began.
TEST_F(Run, TakesUpACheckpointOfAnotherFolderOnce) {
  ASSERT_EQ(0, run(train("first", {"train.steps=4"}))) << text_of(log());
  const std::string from = "run.resume=" + dir("first");
  ASSERT_EQ(0, run(train("second", {from, "train.steps=6"}))) << text_of(log());
  ASSERT_EQ(0, run(train("second", {from, "train.steps=8"}))) << text_of(log());
  std::vector<int64_t> steps;
  for (const Json& row : rows_of(metrics("second"), "step")) steps.push_back(row.at("step"));
  EXPECT_EQ((std::vector<int64_t>{5, 6, 7, 8}), steps);

  const std::string older = "run.resume=" + checkpoint("second", 6);
  EXPECT_EQ(20, run(train("second", {older, "train.steps=9"}))) << text_of(log());
}

TEST_F(Run, LeavesNoExitReasonOfAnEarlierProcess) {
  ASSERT_EQ(0, run(train("run"))) << text_of(log());
  Process process(train("run", {"train.steps=1000000", "train.eval_every=0"}), log());
  wait_for_rows(process, "run", 14);
  process.signal(SIGKILL);
  EXPECT_EQ(-SIGKILL, process.wait());
  EXPECT_FALSE(std::filesystem::exists(dir("run") + "/exit_reason.json"));
}

// The newest amaxes of the checkpoint's history go on counting; the rest begins at 0.
TEST_F(Run, ContinuesWithAHistoryOfAnotherLength) {
  const auto write_recipe = [&](const std::string& name, int history) {
    std::ofstream(folder_ / name) << "[operands]\n"
                                     "x_fprop = { format = \"fp8-e4m3\", amax = \"delayed\" }\n"
                                     "w_fprop = { format = \"fp8-e4m3\", amax = \"delayed\" }\n"
                                     "[delayed]\nhistory = "
                                  << history << "\n";
    return "precision.recipe=" + (folder_ / name);
  };
  const std::string four = write_recipe("four.toml", 4);
  ASSERT_EQ(0, run(train("run", {four, "train.steps=6"}))) << text_of(log());
  const auto history = [&](const std::string& name, int64_t step, int64_t length) {
    const CheckpointReader reader(checkpoint(name, step));
    const int64_t rows = 2 * 4 * 3;  // blocks, layers, tensors
    std::vector<float> values(static_cast<size_t>(rows * length));
    reader.read({"delayed/history", ops::view(std::span(values), rows, length)});
    return std::vector<float>(values.begin(), values.begin() + length);
  };
  const std::vector<float> saved = history("run", 6, 4);
  EXPECT_NE(0, saved[1]);
  for (const int length : {3, 6}) {
    const std::string name = fmt::format("longer{}", length);
    const std::string recipe = write_recipe(name + ".toml", length);
    const Words words =
        train(name, {recipe, "train.steps=7", "run.resume=" + checkpoint("run", 6)});
    ASSERT_EQ(0, run(words)) << text_of(log());
    EXPECT_NE(std::string::npos, text_of(log()).find(fmt::format(
                                     "delayed.history is {} and the checkpoint's was 4", length)))
        << text_of(log());
    // Step 7 moved everything one place on.
    const std::vector<float> found = history(name, 7, length);
    std::vector<float> expected(static_cast<size_t>(length), 0.0f);
    const int kept = std::min(length, 4) - 2;
    std::copy_n(saved.end() - kept, kept, expected.end() - 1 - kept);
    if (length > 4) expected[static_cast<size_t>(length) - 4] = saved[1];
    expected.back() = found.back();
    EXPECT_EQ(expected, found);
  }
}

// Whatever the file quantizes, the model has no layer left for it.
TEST_F(Run, ARecipeThatQuantizesNothingHereIsNotCalledEmulated) {
  std::ofstream(folder_ / "kept.toml") << "[operands]\nx_fprop = \"fp8-e4m3\"\n"
                                          "[keep]\nlayers = [\"*\"]\n";
  ASSERT_EQ(0, run(train("run", {"precision.recipe=" + (folder_ / "kept.toml"), "train.steps=4"})))
      << text_of(log());
  EXPECT_EQ(std::string::npos, text_of(log()).find("ledger.jsonl")) << text_of(log());
  const std::string bf16 = exact_part(rows_of(metrics("run"), "eval")).at(0);
  ASSERT_EQ(0, run(train("bf16", {"precision.recipe=bf16", "train.steps=4"}))) << text_of(log());
  EXPECT_EQ(bf16, exact_part(rows_of(metrics("bf16"), "eval")).at(0));
  EXPECT_EQ(rows_of(metrics("bf16"), "run").at(0).at("emulated"),
            rows_of(metrics("run"), "run").at(0).at("emulated"));
}

TEST_F(Run, ReportsSayWhatTheyComputedIn) {
  ASSERT_EQ(0, run(train("run", {"precision.recipe=fp8-current", "train.steps=4"})))
      << text_of(log());
  EXPECT_EQ("fp8-current emulated", rows_of(metrics("run"), "eval").at(0).at("precision"));
  const Words eval{"eval", "--json", "--checkpoint", dir("run"), "--batches", "1"};
  const Words generate{"generate",        "--json", "--checkpoint", dir("run"),
                       "--prompt-tokens", "1",      "--tokens",     "2"};
  for (Words words : {eval, generate}) {
    ASSERT_EQ(0, run(words)) << text_of(log());
    EXPECT_EQ("fp8-current emulated", Json::parse(text_of(log())).at("precision"));
    EXPECT_EQ("cpu", Json::parse(text_of(log())).at("device"));
    words.insert(words.end(), {"--precision", "fp32"});
    ASSERT_EQ(0, run(words)) << text_of(log());
    EXPECT_EQ("fp32 native", Json::parse(text_of(log())).at("precision"));
    words.back() = "nvfp4";  // the width of 24 is no multiple of 16
    ASSERT_EQ(20, run(words)) << text_of(log());
    EXPECT_NE(std::string::npos, text_of(log()).find("model.width = 24")) << text_of(log());
  }
}

// Where memory is short: the same sequences, fewer at a time.
TEST_F(Run, EvaluatesInSmallerMicroBatches) {
  ASSERT_EQ(0, run(train("run", {"precision.recipe=fp32", "train.steps=4"}))) << text_of(log());
  const auto eval = [&](Words more) {
    Words words{"eval", "--json", "--checkpoint", dir("run")};
    words.insert(words.end(), more.begin(), more.end());
    EXPECT_EQ(0, run(words)) << text_of(log());
    return Json::parse(text_of(log()));
  };
  const Json whole = eval({"--batches", "1"}), one = eval({"--batches", "1", "--micro-batch", "1"});
  const int64_t micro_batch = whole.at("tokens").get<int64_t>() / one.at("tokens").get<int64_t>();
  EXPECT_LT(1, micro_batch);
  const Json apart = eval({"--batches", fmt::format("{}", micro_batch), "--micro-batch", "1"});
  EXPECT_EQ(whole.at("tokens"), apart.at("tokens"));
  EXPECT_NEAR(whole.at("loss").get<double>(), apart.at("loss").get<double>(), 1e-6);
}

}  // namespace
}  // namespace qstep::trainer::testing
