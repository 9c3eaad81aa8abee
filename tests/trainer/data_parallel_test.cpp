// One global batch on any number of data-parallel ranks: the same bits of everything.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <mutex>
#include <span>

#include "tests/support/test_name.h"
#include "tests/support/thread_comm.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/config/rank_check.h"
#include "trainer/run/ledger.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kSteps = 3;
constexpr double kLr = 0.01;

// What a run leaves behind, put together from the shards of its ranks.
struct Outcome {
  std::vector<float> losses, norms;
  std::vector<float> weight;                  // rank 0's copy, as FP32
  std::vector<float> master, adam_m, adam_v;  // whole
  std::vector<float> precision_state;
  std::vector<std::vector<float>> weights_of_ranks;
};

void put(std::vector<float>& whole, const ShardPlan& plan, const ops::Tensor& owned) {
  for (const OwnedRun& run : plan.owned) {
    const float* const x = owned.as<float>() + run.offset;
    std::copy_n(x, run.size, whole.begin() + run.first);
  }
}

std::vector<float> floats_of(ops::Ops& ops, const ops::Tensor& x) {
  std::vector<float> values(static_cast<size_t>(x.size()));
  ops.cast(ops::view(std::span(values), x.rows, x.cols), x);
  return values;
}

// Every rank sees its own micro-batches of the same stream.
Outcome train(const Config& config, int n_ranks, double lr = kLr) {
  const int64_t n_steps = config.train.steps;
  const int64_t G = config.train.micros_per_step(), share = G / n_ranks;
  const std::vector<test::Batch> all = learnable_batches(G * n_steps, 800);
  Outcome outcome;
  const auto total = static_cast<size_t>(plan_shards(config.model).total);
  for (auto* whole : {&outcome.master, &outcome.adam_m, &outcome.adam_v}) whole->resize(total);
  outcome.weights_of_ranks.resize(static_cast<size_t>(n_ranks));
  std::mutex mutex;
  test::run_ranks(n_ranks, [&](parallel::Comm& comm) {
    omp_set_num_threads(1);
    std::vector<test::Batch> mine;
    for (int64_t step = 0; step < n_steps; ++step) {
      const auto first = all.begin() + step * G + comm.rank() * share;
      mine.insert(mine.end(), first, first + share);
    }
    FixedBatches batches(std::move(mine));
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config, comm);
    for (int64_t step = 1; step <= n_steps; ++step) {
      const StepResult result = trainer.step(batches, lr, step);
      EXPECT_FALSE(result.skipped);
      if (comm.rank() != 0) continue;
      outcome.losses.push_back(result.loss);
      outcome.norms.push_back(result.grad_norm);
    }
    trainer.refresh_weights();  // waits for what the last update sent
    const Parameters& p = trainer.parameters();
    const std::lock_guard lock(mutex);  // replicas are written by all
    put(outcome.master, trainer.shards(), p.master.flat);
    put(outcome.adam_m, trainer.shards(), p.adam_m.flat);
    put(outcome.adam_v, trainer.shards(), p.adam_v.flat);
    outcome.weights_of_ranks[static_cast<size_t>(comm.rank())] = floats_of(*ops, p.weight.flat);
    if (comm.rank() != 0) return;
    for (const NamedTensor& named : trainer.precision_state()) {
      const std::vector<float> values = floats_of(*ops, named.tensor);
      outcome.precision_state.insert(outcome.precision_state.end(), values.begin(), values.end());
    }
  });
  return outcome;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}

void expect_same(const Outcome& expected, const Outcome& found) {
  EXPECT_EQ(expected.losses, found.losses);
  EXPECT_EQ(expected.norms, found.norms);
  EXPECT_TRUE(same_bits(expected.master, found.master)) << "master weights";
  EXPECT_TRUE(same_bits(expected.adam_m, found.adam_m)) << "first moments";
  EXPECT_TRUE(same_bits(expected.adam_v, found.adam_v)) << "second moments";
  EXPECT_TRUE(same_bits(expected.precision_state, found.precision_state)) << "recipe state";
  for (const std::vector<float>& weights : found.weights_of_ranks) {
    EXPECT_TRUE(same_bits(expected.weights_of_ranks.front(), weights)) << "weights of a rank";
  }
}

class AnyNumberOfRanks : public ::testing::TestWithParam<std::string> {};

TEST_P(AnyNumberOfRanks, GivesTheSameBits) {
  Config config = recipe_config(load_recipe(GetParam()), 8, kSteps);
  config.optimizer.clip_norm = 0.5;  // acts: the norm enters the weights
  const Outcome alone = train(config, 1);
  ASSERT_GT(alone.norms.front(), 0.5f);
  for (const int n_ranks : {2, 4, 8}) {
    SCOPED_TRACE(fmt::format("{} ranks", n_ranks));
    expect_same(alone, train(config, n_ranks));
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, AnyNumberOfRanks,
                         ::testing::Values("fp32", "bf16", "fp8-delayed", "mxfp8", "nvfp4"),
                         [](const auto& test) { return test::test_name(test.param); });

TEST(DataParallel, ReplicatedOptimizerGivesTheSameBits) {
  Config config = recipe_config(load_recipe("nvfp4"), 4, kSteps);
  const Outcome sharded = train(config, 4);
  config.parallel.optimizer = OptimizerState::kReplicated;
  expect_same(sharded, train(config, 4));
}

// Not a power of two of ranks; and of micro-batches in all, but not on each rank.
TEST(DataParallel, TreeOrderHoldsWhereverItsNodesFit) {
  const Config config = recipe_config(load_recipe("bf16"), 6, kSteps);
  const Outcome alone = train(config, 1);
  expect_same(alone, train(config, 3));
  expect_same(alone, train(config, 6));
}

// Rank order: equal bits for an equal layout, and the same sums up to rounding for another one.
TEST(DataParallel, RankOrderGivesTheSameBitsAgain) {
  Config config = recipe_config(load_recipe("bf16"), 6, kSteps);
  config.parallel.reduction = Reduction::kRank;
  const Outcome once = train(config, 2);
  expect_same(once, train(config, 2));
  const Outcome alone = train(config, 1);
  EXPECT_FALSE(same_bits(once.master, alone.master));
  for (size_t i = 0; i < alone.losses.size(); ++i) {
    EXPECT_NEAR(alone.losses[i], once.losses[i], 0.01);
  }
}

// ---- gradients in BF16 --------------------------------------------------------------------

Config bf16_gradients(Config config) {
  config.parallel.gradients = GradientType::kBf16;
  return config;
}

TEST(Bf16Gradients, OneRankSendsAndRoundsNothing) {
  const Config config = recipe_config(load_recipe("bf16"), 4, kSteps);
  expect_same(train(config, 1), train(bf16_gradients(config), 1));
}

// The same bits again, and with a replicated optimizer; other ones on another number of ranks.
TEST(Bf16Gradients, GiveTheSameBitsOnTheSameRanks) {
  const Config config = recipe_config(load_recipe("nvfp4"), 4, kSteps);
  Config replicated = bf16_gradients(config);
  replicated.parallel.optimizer = OptimizerState::kReplicated;
  std::vector<Outcome> found;
  for (const int n_ranks : {2, 4}) {
    SCOPED_TRACE(fmt::format("{} ranks", n_ranks));
    found.push_back(train(bf16_gradients(config), n_ranks));
    expect_same(found.back(), train(bf16_gradients(config), n_ranks));
    expect_same(found.back(), train(replicated, n_ranks));
  }
  EXPECT_FALSE(same_bits(found[0].master, found[1].master));
  EXPECT_FALSE(same_bits(found[0].master, train(config, 2).master));
}

// The gradient of each rank is rounded and then their sum, by 2^-8 at most each time. AdamW's
// update does not grow with the gradient, so that to first order, where the loss falls smoothly, no
// larger share of what a run learns can change.
TEST(Bf16Gradients, LearnWhatFp32GradientsLearn) {
  constexpr double kSmoothLr = 0.002, kShareOfTheLearned = 2 * 0x1p-8;
  const Config config = recipe_config(load_recipe("bf16"), 4, 20);
  const Outcome fp32 = train(config, 4, kSmoothLr);
  const Outcome bf16 = train(bf16_gradients(config), 4, kSmoothLr);
  EXPECT_EQ(fp32.losses[0], bf16.losses[0]);
  EXPECT_LT(fp32.losses.back(), fp32.losses[0] - 1);
  for (size_t step = 1; step < fp32.losses.size(); ++step) {
    const double learned = fp32.losses[0] - fp32.losses[step];
    EXPECT_NEAR(fp32.losses[step], bf16.losses[step], kShareOfTheLearned * learned) << step;
  }
}

TEST(DataParallel, LedgersOfAllRanksAreJoined) {
  const Config config = recipe_config(load_recipe("nvfp4"), 4, kSteps);
  const auto entries = [&](int n_ranks) {
    std::vector<LedgerEntry> joined;
    test::run_ranks(n_ranks, [&](parallel::Comm& comm) {
      omp_set_num_threads(1);
      const std::vector<test::Batch> all = learnable_batches(4, 810);
      const int64_t share = 4 / n_ranks;
      const auto first = all.begin() + comm.rank() * share;
      FixedBatches batches({first, first + share});
      const auto ops = ops::make_cpu_ops();
      Trainer trainer(*ops, config, comm);
      NumericLedger ledger(plan_precision(config));
      ledger.begin_step(1);
      trainer.set_ledger(&ledger);
      trainer.step(batches, kLr, 1);
      ledger.join(trainer.groups());
      if (comm.rank() == 0) joined = ledger.entries();
    });
    return joined;
  };
  const std::vector<LedgerEntry> alone = entries(1), shared = entries(4);
  ASSERT_EQ(alone.size(), shared.size());
  for (size_t i = 0; i < alone.size(); ++i) {
    const LedgerEntry &a = alone[i], &b = shared[i];
    EXPECT_EQ(a.micro_batches, b.micro_batches) << i;
    EXPECT_EQ(a.stats.elements, b.stats.elements) << i;
    EXPECT_EQ(a.stats.amax, b.stats.amax) << i;
    EXPECT_EQ(a.stats.underflowed, b.stats.underflowed) << i;
    // Four FP64 sums in another order.
    EXPECT_NEAR(a.stats.squared_error, b.stats.squared_error, 1e-14 * a.stats.squared_error) << i;
  }
}

// A poisoned micro-batch of one rank: no rank moves, and all name the layer.
TEST(DataParallel, NonFiniteStepIsSkippedOnAllRanks) {
  const Config config = recipe_config(load_recipe("nvfp4"), 4, kSteps);
  test::run_ranks(2, [&](parallel::Comm& comm) {
    omp_set_num_threads(1);
    FixedBatches batches(learnable_batches(2, 820));
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config, comm);
    if (comm.rank() == 1) {
      trainer.parameters().weight.views.blocks[2].norm2.as<ops::Bf16>()[3] = ops::Bf16{0x7F80};
    }
    const std::vector<float> before = floats_of(*ops, trainer.parameters().master.flat);
    const StepResult result = trainer.step(batches, kLr, 1);
    EXPECT_TRUE(result.skipped);
    EXPECT_EQ("blocks.2.up x", result.non_finite_input);
    EXPECT_TRUE(same_bits(before, floats_of(*ops, trainer.parameters().master.flat)));
  });
}

// A bit that flips in the copy of one rank is found, on all of them.
TEST(DataParallel, WeightsThatDriftApartEndTheRun) {
  const Config config = recipe_config(load_recipe("bf16"), 4, kSteps);
  test::run_ranks(4, [&](parallel::Comm& comm) {
    omp_set_num_threads(1);
    FixedBatches batches(learnable_batches(1, 830));
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config, comm);
    trainer.step(batches, kLr, 1);
    EXPECT_NO_THROW(trainer.check_replicas());
    if (comm.rank() == 2) {
      trainer.parameters().weight.views.blocks[3].down.as<ops::Bf16>()[77].bits ^= 0x100;
    }
    try {
      trainer.check_replicas();
      ADD_FAILURE() << "nothing found";
    } catch (const ops::Error& error) {
      EXPECT_EQ(ops::ExitCode::kCorruption, error.code());
      EXPECT_PRED_FORMAT2(::testing::IsSubstring,
                          "behind step 1, weights of rank 2 differ from those of ranks 0, 1 and 3, "
                          "first in blocks.3:",
                          error.what());
    }
  });
}

// ---- memory ---------------------------------------------------------------------------

int64_t bytes_of_owner(const std::vector<MemoryRow>& rows, const std::string& owner) {
  for (const MemoryRow& row : rows) {
    if (row.owner == owner) return row.bytes;
  }
  return 0;
}

// Gradients in BF16 need a copy to be sent from, where there is somebody to send them to.
TEST(DataParallel, GradientsInTransitAreTwoBytesEach) {
  const Config fp32 = recipe_config(load_recipe("bf16"), 8, kSteps);
  const int64_t total = plan_shards(fp32.model).total;
  const auto bytes = [](const Config& config, int n_ranks) {
    return bytes_of_owner(training_memory(config, n_ranks, 0), "gradients in transit");
  };
  EXPECT_EQ(0, bytes(fp32, 2));
  EXPECT_EQ(0, bytes(bf16_gradients(fp32), 1));
  EXPECT_EQ(2 * total, bytes(bf16_gradients(fp32), 2));
}

// ZeRO-1 of P padded parameters on R ranks: 12 P / R bytes of FP32 state, up to one unit per bucket
// of rounding; everything else as it was.
TEST(DataParallel, OptimizerStateShrinksWithTheRanks) {
  Config config = recipe_config(load_recipe("bf16"), 8, kSteps);
  const ShardPlan whole = plan_shards(config.model);
  for (const int n_ranks : {1, 2, 4, 8}) {
    for (int rank = 0; rank < n_ranks; ++rank) {
      const auto rows = training_memory(config, n_ranks, rank);
      const int64_t slack = static_cast<int64_t>(whole.buckets.size()) * kShardUnit * 4;
      EXPECT_NEAR(4 * whole.total / n_ranks, bytes_of_owner(rows, "master weights"), slack);
      EXPECT_NEAR(8 * whole.total / n_ranks, bytes_of_owner(rows, "optimizer state"), 2 * slack);
      EXPECT_EQ(2 * whole.total, bytes_of_owner(rows, "weights"));
    }
  }
  config.parallel.optimizer = OptimizerState::kReplicated;
  EXPECT_EQ(4 * whole.total, bytes_of_owner(training_memory(config, 8, 3), "master weights"));
}

// ---- what cannot be shared --------------------------------------------------------------

TEST(RankCheck, NamesWhatWorksInstead) {
  Config config = recipe_config(load_recipe("bf16"), 6, kSteps);
  EXPECT_EQ((std::vector<int64_t>{1, 3, 6}), possible_ranks(6, Reduction::kTree));
  EXPECT_EQ((std::vector<int64_t>{1, 2, 3, 6}), possible_ranks(6, Reduction::kRank));
  EXPECT_TRUE(rank_problems(config, 3).empty());
  const auto problem = [&](int64_t n_ranks) {
    const std::vector<std::string> problems = rank_problems(config, n_ranks);
    return problems.empty() ? std::string() : problems.front();
  };
  EXPECT_NE(std::string::npos, problem(2).find("start 1 or 3 ranks, or write train.global_batch = "
                                               "32, or parallel.reduction = \"rank\""))
      << problem(2);
  EXPECT_NE(std::string::npos, problem(4).find("start 3 or 6 ranks, or write train.global_batch = "
                                               "32"))
      << problem(4);
  EXPECT_NE(std::string::npos, problem(7).find("start 6 ranks")) << problem(7);
  EXPECT_THROW(require_ranks(config, 4), ops::Error);
}

}  // namespace
}  // namespace qstep::trainer::testing
