// Whole runs of the qstep executable on several ranks: the same bits as on one, and over any number
// of interruptions with other numbers of ranks.
#include <filesystem>

#include "tests/support/compare.h"
#include "tests/support/test_name.h"
#include "tests/trainer/ranks_fixture.h"

namespace qstep::trainer::testing {
namespace {

class SameBits : public RanksTest, public ::testing::WithParamInterface<std::string> {};

// 1 x 8, 2 x 4, 4 x 2 and 8 x 1: ranks x micro-batches.
TEST_P(SameBits, OnAnyNumberOfRanks) {
  const Words kind{"precision.recipe=" + GetParam(), "precision.ledger_every=2",
                   "optimizer.clip_norm=0.5"};  // acts: the norm enters the weights
  finish("1", 1, kind);
  ASSERT_GT(rows_of(metrics("1"), "step").at(0).at("grad_norm"), 0.5);
  for (const int n_ranks : {2, 4, 8}) {
    SCOPED_TRACE(fmt::format("{} ranks", n_ranks));
    const std::string name = std::to_string(n_ranks);
    finish(name, n_ranks, kind);
    EXPECT_EQ(n_ranks, rows_of(metrics(name), "run").at(0).at("ranks"));
    expect_same_run("1", name, 6);
    for (const auto& row : rows_of(metrics(name), "step")) {  // utilisation is a rank's
      const double tflops = row.at("tflops_causal"), sol = row.at("sol");
      EXPECT_DOUBLE_EQ(row.at("model_flops_per_s").get<double>(), 1e12 * tflops * n_ranks);
      EXPECT_GT(sol, 0);
      EXPECT_LE(sol, 1);
    }
    const bool quantized = GetParam() != "bf16";
    EXPECT_EQ(quantized, std::filesystem::exists(dir(name) + "/ledger.jsonl"));
    if (quantized) expect_same_ledger("1", name);
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, SameBits,
                         ::testing::Values("bf16", "fp8-delayed", "mxfp8", "nvfp4"),
                         [](const auto& test) { return test::test_name(test.param); });

class ResumeOnRanks : public RanksTest {
 protected:
  // The run as it is when everything behind the checkpoint of `step` is lost, as a kill loses it.
  void lose_all_behind(const std::string& name, int64_t step, int64_t steps) const {
    for (int64_t s = step + 1; s <= steps; ++s) std::filesystem::remove_all(checkpoint(name, s));
  }
};

TEST_F(ResumeOnRanks, AtFourThenTwoThenOneThenFour) {
  constexpr int64_t kSteps = 8;
  const Words kind{"precision.recipe=fp8-delayed", "precision.ledger_every=3",
                   fmt::format("train.steps={}", kSteps), "run.save_every=1"};
  finish("whole", 4, kind);
  std::filesystem::copy(dir("whole"), dir("part"), std::filesystem::copy_options::recursive);
  test::Random random(2101);
  int64_t cut = 0;
  int left = 3;  // cuts
  for (const int n_ranks : {2, 1, 4}) {
    cut = random.integer(cut + 1, kSteps - left--);
    SCOPED_TRACE(fmt::format("from step {} on {} ranks", cut, n_ranks));
    lose_all_behind("part", cut, kSteps);
    finish("part", n_ranks, kind);
    expect_same_run("whole", "part", kSteps);
    expect_same_ledger("whole", "part");
  }
  EXPECT_EQ(4u, rows_of(metrics("part"), "run").size());
}

// Every rank has all of the optimizer's state, and rank 0 saves it; the bits are those of parts.
TEST_F(ResumeOnRanks, WithAnotherPlaceOfTheOptimizerState) {
  const Words kind{"train.steps=5", "run.save_every=1"};
  Words replicated = kind;
  replicated.push_back("parallel.optimizer=replicated");
  finish("sharded", 2, kind);
  finish("replicated", 4, replicated);
  const auto compare = [&] {
    EXPECT_EQ(exact_part(rows_of(metrics("sharded"), "step")),
              exact_part(rows_of(metrics("replicated"), "step")));
    expect_same_tensors(checkpoint("sharded", 5), checkpoint("replicated", 5));
  };
  compare();
  lose_all_behind("replicated", 2, 5);
  finish("replicated", 2, kind);
  compare();
}

// Six micro-batches are a tree with a short branch, and three ranks are three nodes of it.
TEST_F(ResumeOnRanks, OnThreeRanksOfATreeOfSix) {
  const Words kind{"train.global_batch=6", "train.steps=5", "run.save_every=1"};
  finish("whole", 1, kind);
  finish("part", 3, kind);
  expect_same_run("whole", "part", 5);
  lose_all_behind("part", 3, 5);
  finish("part", 6, kind);
  expect_same_run("whole", "part", 5);
}

// ---- layers shared by two ranks ---------------------------------------------------------

class SharedLayersOnRanks : public ResumeOnRanks {
 protected:
  const Words kShared{"precision.recipe=nvfp4",  "precision.ledger_every=2",
                      "optimizer.clip_norm=0.5",  // acts: the norm enters the weights
                      "train.steps=6",           "run.save_every=1",         "parallel.tensor=2"};
};

TEST_F(SharedLayersOnRanks, SameBitsAtAnyDataParallelSize) {
  finish("2x1", 2, kShared);
  ASSERT_GT(rows_of(metrics("2x1"), "step").at(0).at("grad_norm"), 0.5);
  for (const int n_ranks : {4, 8}) {
    SCOPED_TRACE(fmt::format("{} ranks", n_ranks));
    const std::string name = std::to_string(n_ranks);
    finish(name, n_ranks, kShared);
    expect_same_run("2x1", name, 6);
    expect_same_ledger("2x1", name);
    EXPECT_EQ(2, rows_of(metrics(name), "run").at(0).at("tensor"));
  }
}

// Tensor 2 x data 2, then 2 x 1, then 2 x 2: as if nothing had happened.
TEST_F(SharedLayersOnRanks, ResumeAtAnotherDataParallelSize) {
  finish("whole", 4, kShared);
  std::filesystem::copy(dir("whole"), dir("part"), std::filesystem::copy_options::recursive);
  lose_all_behind("part", 2, 6);
  finish("part", 2, kShared);
  expect_same_run("whole", "part", 6);
  lose_all_behind("part", 4, 6);
  finish("part", 4, kShared);
  expect_same_run("whole", "part", 6);
}

// A run continues with its layers cut in another way: the same state, other roundings from there.
TEST_F(SharedLayersOnRanks, ResumeAtAnotherTensorParallelSize) {
  Words alone = kShared;
  alone.back() = "parallel.tensor=1";
  finish("whole", 1, alone);
  std::filesystem::copy(dir("whole"), dir("part"), std::filesystem::copy_options::recursive);
  int64_t kept = 5;
  for (const auto& [n_ranks, kind] : {std::pair(4, kShared), std::pair(2, alone)}) {
    lose_all_behind("part", --kept, 6);
    finish("part", n_ranks, kind);
    const auto rows = rows_of(metrics("whole"), "step"), found = rows_of(metrics("part"), "step");
    ASSERT_EQ(rows.size(), found.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      // Before the cut the rows are the same; behind it the first step has the same weights, and
      // the others have taken steps that are a BF16 roundoff of a loss of 6 nats apart.
      const double bound = static_cast<int64_t>(i) < kept ? 0 : 0x1p-8 * 6;
      EXPECT_NEAR(rows[i].at("loss"), found[i].at("loss"), bound) << "step " << i + 1;
    }
  }
}

using BenchOnRanks = RanksTest;

Words bench(const std::string& command, const Words& more) {
  Words words{"bench", command, "--model", "llama-1m", "--batch", "1",
              "--seq", "32",    "--json",  "--steps",  "1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// All ranks take part, and the first one tells.
TEST_F(BenchOnRanks, StepsAreThoseOfAllRanks) {
  for (const auto& [command, tensor] :
       {std::pair("step", "parallel.tensor=1"), std::pair("ops", "parallel.tensor=2")}) {
    MpiRun run(notes(), 2, bench(command, {"--micro-batches", "2", tensor}));
    ASSERT_EQ(codes_of(2, 0), run.wait_codes()) << run.log();
    EXPECT_EQ(Json::parse(run.out(0)).at("ranks"), 2) << run.log();
    EXPECT_EQ(run.out(1), "");
  }
}

TEST_F(BenchOnRanks, ABatchThatCannotBeSharedIsToldOnce) {
  MpiRun run(notes(), 2, bench("step", {"--micro-batches", "1"}));
  EXPECT_EQ(codes_of(2, 20), run.wait_codes()) << run.log();
  const std::vector<std::string> errors = run.error_lines();
  ASSERT_EQ(errors.size(), 1U) << run.log();
  EXPECT_NE(errors[0].find("2 ranks cannot share this run"), std::string::npos) << errors[0];
}

}  // namespace
}  // namespace qstep::trainer::testing
