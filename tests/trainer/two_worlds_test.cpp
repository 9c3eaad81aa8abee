// Ranks whose tensors are out of the hosts' reach, as on GPUs: what is in memory of the host goes
// over one world, tensors over the other, and the bits are those of ranks on processors, where the
// two are one. A tensor in the wrong world ends the process, or is an Error.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/parallel/world_main.h"
#include "tests/support/fenced_comm.h"
#include "tests/support/fenced_ops.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/run/ledger.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kMicros = 4, kSteps = 2;

struct Case {
  const char* recipe;
  int64_t tensor;
  OptimizerState optimizer = OptimizerState::kSharded;
  GradientType gradients = GradientType::kFp32;
};

Config config_of(const Case& c) {
  Config config = recipe_config(load_recipe(c.recipe), kMicros, kSteps);
  config.model.n_layers = 2;
  config.model.n_heads = 8;
  config.model.n_kv_heads = 4;
  config.model.head_dim = 32;
  config.model.ffn_width = 256;
  config.parallel.tensor = c.tensor;
  config.parallel.optimizer = c.optimizer;
  config.parallel.gradients = c.gradients;
  return config;
}

struct Outcome {
  std::vector<float> numbers;  // losses, norms, of an evaluation
  std::vector<std::vector<std::byte>> tensors;
  std::vector<double> ledger;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome train(ops::Ops& ops, const Config& config, const Worlds& worlds) {
  Trainer trainer(ops, config, worlds);
  const parallel::Mesh& mesh = trainer.groups().mesh();
  const std::vector<test::Batch> all = learnable_batches(kMicros * kSteps, 910);
  const int64_t share = kMicros / mesh.data;
  std::vector<test::Batch> mine;
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto first = all.begin() + step * kMicros + mesh.data_rank(worlds.hosts.rank()) * share;
    mine.insert(mine.end(), first, first + share);
  }
  FixedBatches batches(std::move(mine));
  Outcome found;
  NumericLedger ledger(plan_precision(config));
  for (int64_t step = 1; step <= kSteps; ++step) {
    ledger.begin_step(step);
    trainer.set_ledger(step == 2 ? &ledger : nullptr);
    const StepResult result = trainer.step(batches, 3e-3, step);
    found.numbers.insert(found.numbers.end(), {result.loss, result.grad_norm});
    if (step != 2) continue;
    ledger.join(trainer.groups());
    for (const LedgerEntry& entry : ledger.entries()) {
      found.ledger.push_back(entry.stats.squared_error);
    }
  }
  EXPECT_NO_THROW(trainer.check_replicas());
  trainer.refresh_weights();
  found.numbers.push_back(trainer.evaluate({all[0].tokens, all[0].targets}));
  const auto add = [&](const ops::Tensor& x) {
    std::vector<std::byte>& bytes = found.tensors.emplace_back(static_cast<size_t>(x.bytes()));
    ops.download(bytes.data(), x);
  };
  for (ParameterGroup* group :
       {&trainer.parameters().weight, &trainer.parameters().master, &trainer.parameters().adam_m}) {
    add(group->flat);
  }
  for (const NamedTensor& named : trainer.precision_state()) add(named.tensor);
  return found;
}

class TwoWorlds : public ::testing::TestWithParam<Case> {};

TEST_P(TwoWorlds, GiveTheBitsOfOne) {
  parallel::Comm& world = parallel::world();
  if (world.size() % GetParam().tensor != 0) return;
  const Config config = config_of(GetParam());
  const auto cpu = ops::make_cpu_ops();
  const Outcome expected = train(*cpu, config, world);
  test::FencedOps fenced;
  test::FencedComm devices(world.split(0, world.rank()));
  EXPECT_TRUE(expected == train(fenced, config, {world, devices}));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, TwoWorlds,
    ::testing::Values(Case{"bf16", 1},
                      Case{"bf16", 1, OptimizerState::kSharded, GradientType::kBf16},
                      Case{"nvfp4", 1, OptimizerState::kReplicated}, Case{"fp8-delayed", 1},
                      Case{"bf16", 2}, Case{"nvfp4", 2}, Case{"fp8-delayed", 2}, Case{"nvfp4", 4}),
    [](const auto& test) {
      std::string recipe = test.param.recipe;
      std::replace(recipe.begin(), recipe.end(), '-', '_');
      return fmt::format(
          "{}_tensor{}_{}{}", recipe, test.param.tensor,
          test.param.optimizer == OptimizerState::kSharded ? "sharded" : "replicated",
          test.param.gradients == GradientType::kFp32 ? "" : "_bf16_gradients");
    });

// One rank's damage is found by hashes in memory of the host.
TEST(TwoWorldsCheck, WeightsThatDriftApartAreFound) {
  parallel::Comm& world = parallel::world();
  if (world.size() == 1) return;
  const Config config = config_of({"bf16", 1});
  test::FencedOps fenced;
  test::FencedComm devices(world.split(0, world.rank()));
  Trainer trainer(fenced, config, {world, devices});
  if (world.rank() == 1) fenced.zero(trainer.parameters().weight.views.blocks[1].down);
  EXPECT_THROW(trainer.check_replicas(), ops::Error);
}

TEST(TwoWorldsCheck, GroupsOfBothHaveNames) {
  parallel::Comm& world = parallel::world();
  test::FencedComm devices(world.split(0, world.rank()));
  const int tensor = world.size() % 2 == 0 ? 2 : 1;
  const RankGroups groups({world, devices}, tensor);
  const NamedGroups names = groups.by_name();
  for (const MeshGroups* of : {&groups.hosts(), &groups.devices()}) {
    EXPECT_EQ("data", names.at(std::string(of->data().group())).name);
    if (tensor > 1) {
      EXPECT_EQ("tensor", names.at(std::string(of->tensor()->group())).name);
      EXPECT_EQ("world", names.at(std::string(of->world().group())).name);
    }
  }
  EXPECT_EQ(tensor > 1 ? 6u : 2u, names.size());
}

}  // namespace
}  // namespace qstep::trainer::testing
