// Whole steps on a GPU against the CPU, per recipe; and what a machine without one says.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/trainer/recipe_testing.h"
#include "trainer/backend.h"
#include "trainer/host_tensors.h"
#include "trainer/self_test.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kSteps = 20;

std::vector<float> losses(ops::Ops& ops, const Config& config) {
  Trainer trainer(ops, config);
  FixedBatches batches(learnable_batches(kSteps, 900));
  std::vector<float> found;
  for (int64_t step = 1; step <= kSteps; ++step)
    found.push_back(trainer.step(batches, 3e-3, step).loss);
  return found;
}

class TrainingOnGpu : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    gpu_ = ops::make_cuda_ops(why_);
    if (gpu_ == nullptr) GTEST_SKIP() << "needs an NVIDIA GPU: " << why_;
  }
  std::unique_ptr<ops::Ops> gpu_;
  std::string why_;
};
INSTANTIATE_TEST_SUITE_P(Recipes, TrainingOnGpu,
                         ::testing::Values("fp32", "bf16", "fp8-delayed", "fp8-current",
                                           "fp8-block", "mxfp8", "nvfp4", "quartet2", "tetrajet2"));

// Sums in another order: in FP32 the losses part slowly; where activations are rounded, a value on
// the edge may fall the other way, by one step of the format for one of many.
TEST_P(TrainingOnGpu, LossesFollowTheCpus) {
  const Config config = recipe_config(load_recipe(GetParam()), 1, kSteps);
  const auto cpu = ops::make_cpu_ops();
  const std::vector<float> expected = losses(*cpu, config), found = losses(*gpu_, config);
  const double band = std::string_view(GetParam()) == "fp32" ? 1e-3 : 0.03;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(expected[i]), static_cast<double>(found[i]), band) << i;
  }
  EXPECT_EQ(found, losses(*gpu_, config)) << "not the same bits twice";
}

TEST_P(TrainingOnGpu, SaysWhichKernelsComputeAttention) {
  Config config = recipe_config(load_recipe(GetParam()), 1, kSteps);
  config.run.device = Device::kCuda;
  const std::string text = backend_text(*gpu_, config);
  const bool fp32 = config.compute_dtype() == ops::Dtype::kF32;
  const char* part =
      fp32 ? ", attention by plain FP32 kernels: its tensors are fp32" : ", attention by ";
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST_P(TrainingOnGpu, TimesOfAStepAreTheGpus) {
  Config config = recipe_config(load_recipe(GetParam()), 1, kSteps);
  config.timing.level = TimingLevel::kOps;
  Trainer trainer(*gpu_, config);
  FixedBatches batches(learnable_batches(kSteps, 900));
  for (int64_t step = 1; step <= 3; ++step) {
    const StepResult found = trainer.step(batches, 3e-3, step);
    const double step_ms = total_ms(found.phases_ms);
    EXPECT_NEAR(step_ms,
                std::accumulate(found.breakdown_ms->begin(), found.breakdown_ms->end(), 0.0), 1e-6);
    EXPECT_GT(found.host_ms.value(), 0);
    EXPECT_LE(found.host_ms.value(), step_ms);
    int64_t end = trainer.timeline().step().begin;
    for (const TimeSpan& span : trainer.timeline().spans()) {
      EXPECT_LE(end, span.when.begin);
      end = span.when.end;
    }
    EXPECT_LE(end, trainer.timeline().step().end);
  }
}

TEST_P(TrainingOnGpu, QuantizersHaveTheBitsOfTheCpu) {
  EXPECT_NO_THROW(require_self_test(load_recipe(GetParam()), quantize_on_host(*gpu_)));
}

TEST(BackendTest, AGpuThatCannotBeHadIsRefusedWithTheReason) {
  std::string why;
  if (ops::make_cuda_ops(why) != nullptr) GTEST_SKIP() << "needs a machine without an NVIDIA GPU";
  EXPECT_FALSE(why.empty());
  EXPECT_EQ("cpu", make_backend(Device::kAuto)->name());
  try {
    make_backend(Device::kCuda);
    ADD_FAILURE() << "no Error";
  } catch (const ops::Error& e) {
    EXPECT_EQ(ops::ExitCode::kGpu, e.code());
    EXPECT_NE(std::string::npos, std::string(e.what()).find(why)) << e.what();
  }
}

TEST(BackendTest, SeveralRanksComputeOnTheCpu) {
  EXPECT_EQ("cpu", make_backend(Device::kAuto, 2)->name());
  EXPECT_THROW(make_backend(Device::kCuda, 2), ops::Error);
}

}  // namespace
}  // namespace qstep::trainer::testing
