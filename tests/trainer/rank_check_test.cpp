#include "trainer/config/rank_check.h"

#include <gtest/gtest.h>

#include "ops/error.h"

namespace qstep::trainer {
namespace {

using Problems = std::vector<std::string>;

// 12 heads; 12 micro-batches a step.
Config config_with(int64_t tensor, Reduction reduction = Reduction::kTree) {
  Config config =
      load_config("", std::vector<std::string>{"model.n_layers=1", "model.width=384",
                                               "model.n_heads=12", "model.ffn_width=768",
                                               "model.vocab_size=384", "train.seq_len=48",
                                               "train.micro_batch=2", "train.global_batch=24"})
          .config;
  config.parallel.tensor = tensor;
  config.parallel.reduction = reduction;
  return config;
}

TEST(RankCheck, GroupsShareTheMicroBatches) {
  for (const int64_t n_ranks : {3, 6, 12}) {  // 4, 2 and 1 micro-batches each
    for (const int64_t tensor : {1, 2, 3, 4}) {
      EXPECT_EQ(Problems{}, rank_problems(config_with(tensor), n_ranks * tensor))
          << n_ranks << " x " << tensor;
      EXPECT_EQ(1u, rank_problems(config_with(tensor), 2 * tensor).size());
    }
  }
}

TEST(RankCheck, GroupsAreComplete) {
  EXPECT_EQ((Problems{"parallel.tensor = 3 does not divide the 4 ranks of this run: start 3 or 9 "
                      "ranks, or write parallel.tensor = 4"}),
            rank_problems(config_with(3), 4));
  EXPECT_EQ((Problems{"parallel.tensor = 3 does not divide the 4 ranks of this run: start 3 or 6 "
                      "ranks, or write parallel.tensor = 2 or 4"}),
            rank_problems(config_with(3, Reduction::kRank), 4));
  EXPECT_EQ((Problems{"parallel.tensor = 2 does not divide the 1 rank of this run: start 2 ranks, "
                      "or write parallel.tensor = 1"}),
            rank_problems(config_with(2, Reduction::kRank), 1));
}

TEST(RankCheck, WhatGroupsCannotShare) {
  EXPECT_EQ((Problems{"train.global_batch = 24 is 12 micro-batches of train.micro_batch = 2, which "
                      "5 groups of parallel.tensor = 2 ranks cannot share evenly: start 8 or 12 "
                      "ranks, or write train.global_batch = 30"}),
            rank_problems(config_with(2, Reduction::kRank), 10));
  EXPECT_EQ((Problems{"parallel.reduction = \"tree\" wants a power of two of micro-batches on "
                      "every rank, found 6 (12 on 2 groups of parallel.tensor = 3 ranks): start 3 "
                      "or 9 ranks, or write parallel.tensor = 2 or 6, or write train.global_batch "
                      "= 32, or parallel.reduction = \"rank\""}),
            rank_problems(config_with(3), 6));
}

// Those of the model come first, and all ranks given as advice are for the group that was asked
// for.
TEST(RankCheck, EveryReasonIsTold) {
  const Problems problems = rank_problems(config_with(5), 12);
  ASSERT_EQ(5u, problems.size());
  EXPECT_TRUE(problems[0].starts_with("parallel.tensor = 5 does not divide model.n_heads = 12"))
      << problems[0];
  EXPECT_TRUE(
      problems[4].starts_with("parallel.tensor = 5 does not divide the 12 ranks of this run:"
                              " start 5 or 15 ranks, or write parallel.tensor = 4 or 12"))
      << problems[4];
  try {
    require_ranks(config_with(5), 12);
    ADD_FAILURE();
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kConfig, error.code());
    EXPECT_TRUE(std::string(error.what()).starts_with("12 ranks cannot share this run\n"));
  }
}

// Advice is taken: what is written instead works.
TEST(RankCheck, EveryAdvisedGroupWorks) {
  for (const Reduction reduction : {Reduction::kTree, Reduction::kRank}) {
    for (int64_t n_ranks = 1; n_ranks <= 24; ++n_ranks) {
      for (int64_t tensor = 2; tensor <= 12; ++tensor) {
        for (const std::string& text : rank_problems(config_with(tensor, reduction), n_ranks)) {
          const size_t ranks = text.find("start ");
          if (ranks == std::string::npos) continue;
          const int64_t advised = std::stoll(text.substr(ranks + 6));
          EXPECT_EQ(0, advised % tensor) << text;
          for (const std::string& left : rank_problems(config_with(tensor, reduction), advised)) {
            EXPECT_EQ(std::string::npos, left.find("start ")) << text << "\n" << left;
          }
          const std::string key = "or write parallel.tensor = ";
          const size_t at = text.find(key);
          if (at == std::string::npos) continue;
          const int64_t other = std::stoll(text.substr(at + key.size()));
          EXPECT_EQ(Problems{}, rank_problems(config_with(other, reduction), n_ranks)) << text;
        }
      }
    }
  }
}

}  // namespace
}  // namespace qstep::trainer
