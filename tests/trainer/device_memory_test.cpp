// A run on a backend whose memory is out of the host's reach: the trainer touches tensors through
// operations alone, and what files and self-tests need is copied. The same bits as on the CPU's own
// memory, in every kind of recipe.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/fenced_ops.h"
#include "tests/support/test_name.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/saved_trainer.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/generator.h"
#include "trainer/inference/loaded_model.h"
#include "trainer/quantizers/host_tensors.h"
#include "trainer/quantizers/self_test.h"
#include "trainer/run/ledger.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kMicros = 2;
constexpr int64_t kSteps = 4;

class DeviceMemory : public ::testing::TestWithParam<const char*> {
 protected:
  Config config_ = recipe_config(load_recipe(GetParam()), kMicros, 2 * kSteps);
};
INSTANTIATE_TEST_SUITE_P(Recipes, DeviceMemory,
                         ::testing::Values("fp32", "bf16", "fp8-delayed", "fp8-block", "mxfp8",
                                           "nvfp4"),
                         [](const auto& test) { return test::test_name(test.param); });

// Steps first + 1 .. first + kSteps.
std::vector<float> train(Trainer& trainer, int64_t first) {
  FixedBatches batches(learnable_batches(kMicros * kSteps, 700 + static_cast<uint64_t>(first)));
  std::vector<float> results;
  for (int64_t step = first + 1; step <= first + kSteps; ++step) {
    const StepResult result = trainer.step(batches, 3e-3, step);
    results.push_back(result.loss);
    results.push_back(result.grad_norm);
  }
  return results;
}

// A trainer on the CPU behind kSteps, and its checkpoint.
struct Saved {
  explicit Saved(const Config& config) : trainer(*cpu, config) {
    train(trainer, 0);
    save_trainer(*cpu, trainer, kSteps, folder.path());
  }

  std::unique_ptr<ops::Ops> cpu = ops::make_cpu_ops();
  TemporaryFolder folder;
  Trainer trainer;
};

TEST_P(DeviceMemory, TrainsSavesAndResumesWithTheBitsOfTheCpu) {
  const auto cpu = ops::make_cpu_ops();
  test::FencedOps fenced;
  const TemporaryFolder cpu_folder, fenced_folder;
  Trainer expected(*cpu, config_), found(fenced, config_);
  NumericLedger expected_ledger(plan_precision(config_)), found_ledger(plan_precision(config_));
  expected.set_ledger(&expected_ledger);
  found.set_ledger(&found_ledger);
  EXPECT_EQ(train(expected, 0), train(found, 0));
  ASSERT_EQ(expected_ledger.entries().size(), found_ledger.entries().size());
  for (size_t i = 0; i < found_ledger.entries().size(); ++i) {
    const LedgerEntry &a = expected_ledger.entries()[i], &b = found_ledger.entries()[i];
    EXPECT_EQ(a.micro_batches, b.micro_batches);
    EXPECT_EQ(0, std::memcmp(&a.stats, &b.stats, sizeof a.stats));
  }
  expected.set_ledger(nullptr);
  found.set_ledger(nullptr);
  save_trainer(*cpu, expected, kSteps, cpu_folder.path());
  save_trainer(fenced, found, kSteps, fenced_folder.path());
  const std::vector<float> goes_on = train(expected, kSteps);

  // Each continues what the other saved.
  Trainer on_cpu(*cpu, config_), on_device(fenced, config_);
  load_trainer(*cpu, on_cpu, kSteps, fenced_folder.path());
  load_trainer(fenced, on_device, kSteps, cpu_folder.path());
  EXPECT_EQ(goes_on, train(on_cpu, kSteps));
  EXPECT_EQ(goes_on, train(on_device, kSteps));

  FixedBatches batches(learnable_batches(1, 800));
  EXPECT_EQ(expected.evaluate(batches.next()), on_device.evaluate(batches.next()));
}

TEST_P(DeviceMemory, EvaluatesACheckpointWithTheLossOfTheCpu) {
  Saved saved(config_);
  test::FencedOps fenced;
  const auto loss_on = [&](ops::Ops& ops) {
    const LoadedModel loaded(ops, saved.folder.path(), "", Passes::kMicroBatches);
    FixedBatches batches(learnable_batches(1, 800));
    return Evaluator(ops, loaded).loss(batches.next());
  };
  FixedBatches batches(learnable_batches(1, 800));
  EXPECT_EQ(saved.trainer.evaluate(batches.next()), loss_on(*saved.cpu));
  EXPECT_EQ(loss_on(*saved.cpu), loss_on(fenced));
}

TEST_P(DeviceMemory, GeneratesWithTheLogitsOfTheCpu) {
  Saved saved(config_);
  test::FencedOps fenced;
  const auto generate = [&](ops::Ops& ops) {
    const LoadedModel loaded(ops, saved.folder.path(), GetParam());
    Generator generator(ops, loaded, 12, loaded.config().model.vocab_size);
    std::vector<int32_t> tokens;
    const std::vector<int32_t> prompt{3, 1, 4, 1};
    generator.generate(prompt, 8, SamplingOptions{}, -1, [&](int32_t token) {
      tokens.push_back(token);
      return true;
    });
    return tokens;
  };
  EXPECT_EQ(generate(*saved.cpu), generate(fenced));
}

TEST_P(DeviceMemory, QuantizersAreTestedThere) {
  test::FencedOps fenced;
  EXPECT_NO_THROW(require_self_test(config_.precision.loaded, quantize_on_host(fenced)));
}

}  // namespace
}  // namespace qstep::trainer::testing
