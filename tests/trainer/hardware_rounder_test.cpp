// precision.stochastic_rounding = "hardware": refused where the backend does not round so, and
// otherwise in every quantization of training and in none of a loaded checkpoint.
#include <gtest/gtest.h>

#include <map>

#include "tests/support/wrapped_ops.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/saved_trainer.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/loaded_model.h"

namespace qstep::trainer::testing {
namespace {

using precision::StochasticRounder;

constexpr int64_t kMicros = 2;

Config config_of(const char* recipe) {
  Config config = recipe_config(load_recipe(recipe), kMicros, /*n_steps=*/4);
  config.precision.stochastic_rounding = StochasticRounder::kHardware;
  return config;
}

// Says that it rounds by itself, and counts how often it is asked to; the codes are the CPU's.
class RoundingOps final : public test::WrappedOps {
 public:
  std::string_view name() const override { return "rounding"; }
  bool in_host_memory() const override { return true; }
  ops::Buffer allocate(int64_t bytes) override { return inner_->allocate(bytes); }
  bool has_hardware_rounder() override { return true; }
  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const Tensor& x, const ops::QuantCall& call) override {
    ++calls[call.random.rounder];
    ops::QuantCall portable = call;
    portable.random.rounder = StochasticRounder::kPortable;
    inner_->quantize(rowwise, columnwise, x, portable);
  }

  std::map<StochasticRounder, int> calls;

 private:
  void run(std::string_view, const std::function<void()>& f) override { f(); }
};

float train(Trainer& trainer) {
  FixedBatches batches(learnable_batches(2 * kMicros, 700));
  trainer.step(batches, 3e-3, 1);
  return trainer.step(batches, 3e-3, 2).loss;
}

TEST(HardwareRounder, IsRefusedWhereTheBackendHasNone) {
  const auto cpu = ops::make_cpu_ops();
  try {
    Trainer(*cpu, config_of("nvfp4-all-layers"));
    FAIL() << "trained";
  } catch (const ops::Error& e) {
    EXPECT_EQ(ops::ExitCode::kConfig, e.code());
    const std::string text = e.what();
    EXPECT_NE(std::string::npos, text.find("precision.stochastic_rounding = \"hardware\"")) << text;
    EXPECT_NE(std::string::npos, text.find("computes on cpu:")) << text;
    EXPECT_NE(std::string::npos, text.find("\"portable\"")) << text;
  }
}

// Nothing to round, nothing to refuse.
TEST(HardwareRounder, ChangesNoRecipeThatRoundsToTheNearest) {
  const auto cpu = ops::make_cpu_ops();
  for (const char* const recipe : {"bf16", "mxfp8", "nvfp4-no-sr"}) {
    EXPECT_NO_THROW(Trainer(*cpu, config_of(recipe))) << recipe;
  }
}

TEST(HardwareRounder, IsInEveryQuantizationOfTraining) {
  const Config config = config_of("nvfp4-all-layers");
  RoundingOps rounding;
  Trainer trainer(rounding, config);
  const float loss = train(trainer);
  EXPECT_GT(rounding.calls[StochasticRounder::kHardware], 0);
  EXPECT_EQ(rounding.calls[StochasticRounder::kPortable], 0);

  Config portable = config;
  portable.precision.stochastic_rounding = StochasticRounder::kPortable;
  RoundingOps counting;
  Trainer expected(counting, portable);
  EXPECT_EQ(train(expected), loss);
  EXPECT_EQ(counting.calls[StochasticRounder::kHardware], 0);
}

// A checkpoint is evaluated anywhere, whatever trained it.
TEST(HardwareRounder, IsNotAskedOfWhoEvaluates) {
  RoundingOps rounding;
  const TemporaryFolder folder;
  Trainer trainer(rounding, config_of("nvfp4-all-layers"));
  train(trainer);
  save_trainer(rounding, trainer, 2, folder.path());
  const auto cpu = ops::make_cpu_ops();
  const LoadedModel loaded(*cpu, folder.path(), "", Passes::kMicroBatches);
  FixedBatches batches(learnable_batches(1, 800));
  EXPECT_GT(Evaluator(*cpu, loaded).loss(batches.next()), 0.0f);
}

}  // namespace
}  // namespace qstep::trainer::testing
