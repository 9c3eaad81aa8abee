// The flat layout: where weights lie in the buckets, and who owns what.
#include "trainer/model/shard_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/trainer/split_testing.h"

namespace qstep::trainer::testing {
namespace {

class ShardPlanOf : public ::testing::TestWithParam<SplitCase> {};

int64_t n_elements(const ShardPlan& plan, int64_t bucket, bool split) {
  int64_t n = 0;
  for (const PlacedWeight& weight : plan.weights) {
    if (weight.spec.bucket != bucket) continue;
    if ((weight.spec.split != TensorSplit::kNone) == split) n += weight.size();
  }
  return n;
}

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

TEST_P(ShardPlanOf, WeightsThatAreCutComeFirst) {
  const ModelConfig& model = GetParam().model;
  for (const int t : tensor_sizes(model)) {
    const ShardPlan plan = plan_shards(model, OptimizerState::kSharded, 1, 0, {t, t - 1});
    int64_t end = 0;
    for (const Bucket& b : plan.buckets) {
      EXPECT_EQ(end, b.first);
      EXPECT_EQ(0, b.split_size % kShardUnit);
      EXPECT_EQ(0, b.size % kShardUnit);
      end = b.first + b.size;
    }
    EXPECT_EQ(end, plan.total);

    std::vector<int> taken(static_cast<size_t>(plan.total));
    for (const PlacedWeight& weight : plan.weights) {
      EXPECT_EQ(0, weight.first % kAlignElements) << weight.spec.name;
      const Bucket& b = plan.buckets[static_cast<size_t>(weight.spec.bucket)];
      const bool split = weight.spec.split != TensorSplit::kNone;
      EXPECT_GE(weight.first, b.first + (split ? 0 : b.split_size)) << weight.spec.name;
      EXPECT_LE(weight.first + weight.size(), b.first + (split ? b.split_size : b.size))
          << weight.spec.name;
      for (int64_t i = 0; i < weight.size(); ++i) {
        ++taken[static_cast<size_t>(weight.first + i)];
      }
    }
    EXPECT_EQ(1, *std::max_element(taken.begin(), taken.end())) << "weights overlap";
    // No more than what alignment needs: at most kAlignElements a weight, one unit a region.
    for (int64_t bucket = 0; bucket < n_buckets(model); ++bucket) {
      const Bucket& b = plan.buckets[static_cast<size_t>(bucket)];
      const auto most = [&](bool split) {
        const auto n = static_cast<int64_t>(plan.weights.size());
        return round_up(n_elements(plan, bucket, split) + n * kAlignElements, kShardUnit);
      };
      EXPECT_LE(b.split_size, most(true));
      EXPECT_LE(b.size - b.split_size, most(false));
    }
  }
}

// Weights of a kind follow each other in the order of the list, whatever the size of the group.
TEST_P(ShardPlanOf, OrderDoesNotDependOnTheGroup) {
  const ModelConfig& model = GetParam().model;
  const auto order = [&](int t) {
    ShardPlan plan = plan_shards(model, OptimizerState::kSharded, 1, 0, {t, 0});
    std::stable_sort(
        plan.weights.begin(), plan.weights.end(),
        [](const PlacedWeight& a, const PlacedWeight& b) { return a.first < b.first; });
    std::vector<std::string> names;
    for (const PlacedWeight& weight : plan.weights) names.push_back(weight.spec.name);
    return names;
  };
  for (const int t : tensor_sizes(model)) EXPECT_EQ(order(1), order(t)) << t;
}

// Ranks of a tensor group talk about the same elements.
TEST_P(ShardPlanOf, IsTheSameOnAllRanksOfAGroup) {
  const ModelConfig& model = GetParam().model;
  for (const int t : tensor_sizes(model)) {
    const ShardPlan first = plan_shards(model, OptimizerState::kSharded, 3, 1, {t, 0});
    for (int rank = 1; rank < t; ++rank) {
      const ShardPlan other = plan_shards(model, OptimizerState::kSharded, 3, 1, {t, rank});
      EXPECT_EQ(first.total, other.total);
      for (size_t i = 0; i < first.weights.size(); ++i) {
        EXPECT_EQ(first.weights[i].first, other.weights[i].first);
        EXPECT_EQ(first.weights[i].size(), other.weights[i].size());
      }
      for (size_t b = 0; b < first.buckets.size(); ++b) {
        EXPECT_EQ(first.buckets[b].split_size, other.buckets[b].split_size);
        EXPECT_EQ(first.buckets[b].bounds, other.buckets[b].bounds);
      }
    }
  }
}

TEST_P(ShardPlanOf, EveryElementHasOneOwnerAmongDataParallelRanks) {
  const ModelConfig& model = GetParam().model;
  for (const int t : tensor_sizes(model)) {
    for (const int n_data : {1, 2, 3, 5, 64}) {
      SCOPED_TRACE(fmt::format("data {}, tensor {}", n_data, t));
      std::vector<int> owners(
          static_cast<size_t>(plan_shards(model, OptimizerState::kSharded, 1, 0, {t, 0}).total));
      for (int data = 0; data < n_data; ++data) {
        const ShardPlan plan = plan_shards(model, OptimizerState::kSharded, n_data, data, {t, 0});
        EXPECT_EQ(n_data == 1, plan.whole());
        int64_t offset = 0;
        for (size_t b = 0; b < plan.owned.size(); ++b) {
          const OwnedRun& run = plan.owned[b];
          EXPECT_EQ(offset, run.offset);
          EXPECT_EQ(0, run.first % kShardUnit);
          EXPECT_EQ(0, run.size % kShardUnit);
          // As even as units allow, over the whole bucket.
          EXPECT_NEAR(plan.buckets[b].size / n_data, run.size, kShardUnit);
          for (int64_t i = 0; i < run.size; ++i) ++owners[static_cast<size_t>(run.first + i)];
          offset += run.size;
        }
        EXPECT_EQ(offset, plan.owned_total);
      }
      EXPECT_EQ(static_cast<ptrdiff_t>(owners.size()), std::count(owners.begin(), owners.end(), 1));
    }
  }
}

TEST_P(ShardPlanOf, ReplicatedOwnsEverything) {
  const ShardPlan plan =
      plan_shards(GetParam().model, OptimizerState::kReplicated, 3, 2, TensorPlace{2, 1});
  EXPECT_TRUE(plan.whole());
  EXPECT_EQ(plan.total, plan.owned_total);
}

INSTANTIATE_TEST_SUITE_P(Models, ShardPlanOf, ::testing::ValuesIn(split_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace qstep::trainer::testing
