// Whole steps on a GPU against the CPU, per recipe; and what a machine without one says. What
// compares two backends also runs with another CPU backend in the GPU's place, so that it has run
// where there is no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/support/test_name.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/saved_trainer.h"
#include "trainer/backend/backend.h"
#include "trainer/quantizers/host_tensors.h"
#include "trainer/quantizers/self_test.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kSteps = 20;
constexpr double kLr = 1e-3;  // gentle: paths do not part by themselves

// Steps first .. last, from 1.
std::vector<float> train(Trainer& trainer, int64_t first, int64_t last) {
  FixedBatches batches(learnable_batches(last - first + 1, 900 + static_cast<uint64_t>(first)));
  std::vector<float> losses;
  for (int64_t step = first; step <= last; ++step) {
    losses.push_back(trainer.step(batches, kLr, step).loss);
  }
  return losses;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  return largest;
}

std::vector<std::byte> state_of(ops::Ops& ops, Trainer& trainer) {
  const HostTensors all(ops, all_tensors(trainer));
  std::vector<std::byte> bytes;
  for (const NamedTensor& named : all.tensors()) {
    const auto* const first = static_cast<const std::byte*>(named.tensor.data);
    bytes.insert(bytes.end(), first, first + named.tensor.bytes());
  }
  return bytes;
}

std::vector<std::string> all_recipes() {
  const std::vector<std::string_view> names = recipe_names();
  return {names.begin(), names.end()};
}

enum class Place : uint8_t { kGpu, kCpu };

class TwoBackends : public ::testing::TestWithParam<std::tuple<std::string, Place>> {
 protected:
  void SetUp() override {
    if (std::get<Place>(GetParam()) == Place::kCpu) {
      other_ = ops::make_cpu_ops();
      return;
    }
    std::string why;
    other_ = ops::make_cuda_ops(why);
    if (other_ == nullptr) GTEST_SKIP() << "needs an NVIDIA GPU: " << why;
  }

  // How far apart the paths of two runs are that differ by rounding is a property of model, data
  // and recipe, and the CPU can measure it: it trains again from weights that are off, at random,
  // by what the GPU's operations may be off by, a roundoff of the compute type or the 2^-18 of its
  // special functions (tests/gpu/row_ops_cuda_test.cpp). The largest change of a loss, times a
  // factor for sums in another order, is the band.
  float band(const std::vector<float>& expected) {
    constexpr float kFactor = 2;
    const double error = std::max(test::roundoff(config_.compute_dtype()), 0x1p-18);
    float largest = 0;
    for (const uint64_t seed : {71, 72}) {
      Trainer trainer(*cpu_, config_);
      disturb(trainer, error, seed);
      largest = std::max(largest, largest_difference(expected, train(trainer, 1, kSteps)));
    }
    EXPECT_GT(largest, 0.0f);
    EXPECT_LT(kFactor * largest, 0.25f) << "a band that says nothing";
    return kFactor * largest;
  }

  Config config_ = recipe_config(load_recipe(std::get<std::string>(GetParam())), 1, kSteps);
  std::unique_ptr<ops::Ops> cpu_ = ops::make_cpu_ops(), other_;
};

TEST_P(TwoBackends, LossesFollowTheCpus) {
  Trainer on_cpu(*cpu_, config_), on_other(*other_, config_), again(*other_, config_);
  const std::vector<float> expected = train(on_cpu, 1, kSteps), found = train(on_other, 1, kSteps);
  const float difference = largest_difference(expected, found), largest = band(expected);
  EXPECT_LE(difference, largest);
  RecordProperty("difference_over_band", fmt::format("{:.3f}", difference / largest));
  EXPECT_EQ(found, train(again, 1, kSteps)) << "not the same bits twice";
  EXPECT_EQ(state_of(*other_, on_other), state_of(*other_, again)) << "not the same bits twice";
}

// Each goes on from its own checkpoint with the bits of the run that was not interrupted, and from
// the other's as that would have.
TEST_P(TwoBackends, EachResumesWhatTheOtherSaved) {
  constexpr int64_t kSaved = kSteps / 2;
  struct Run {
    Run(ops::Ops& its_ops, const Config& config) : ops(its_ops), trainer(ops, config) {
      losses = train(trainer, 1, kSaved);
      save_trainer(ops, trainer, kSaved, folder.path());
      state = state_of(ops, trainer);
      const std::vector<float> more = train(trainer, kSaved + 1, kSteps);
      losses.insert(losses.end(), more.begin(), more.end());
    }
    std::vector<float> rest() const { return {losses.begin() + kSaved, losses.end()}; }

    ops::Ops& ops;
    Trainer trainer;
    TemporaryFolder folder;
    std::vector<float> losses;
    std::vector<std::byte> state;  // as saved
  };
  const Run on_cpu(*cpu_, config_), on_other(*other_, config_);
  const float largest = band(on_cpu.losses);
  for (const Run* const saved : {&on_cpu, &on_other}) {
    for (const Run* const resumes : {&on_cpu, &on_other}) {
      SCOPED_TRACE(
          fmt::format("saved on {}, resumed on {}", saved->ops.name(), resumes->ops.name()));
      Trainer trainer(resumes->ops, config_);
      load_trainer(resumes->ops, trainer, kSaved, saved->folder.path());
      EXPECT_EQ(saved->state, state_of(resumes->ops, trainer));
      const std::vector<float> found = train(trainer, kSaved + 1, kSteps);
      EXPECT_LE(largest_difference(saved->rest(), found), largest);
      if (saved == resumes) {
        EXPECT_EQ(saved->rest(), found);
      }
    }
  }
}

std::string name_of(const ::testing::TestParamInfo<TwoBackends::ParamType>& test) {
  return test::test_name(std::get<std::string>(test.param));
}
INSTANTIATE_TEST_SUITE_P(OnGpu, TwoBackends,
                         ::testing::Combine(::testing::ValuesIn(all_recipes()),
                                            ::testing::Values(Place::kGpu)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(OnCpu, TwoBackends,
                         ::testing::Combine(::testing::Values("fp32", "fp8-delayed", "nvfp4"),
                                            ::testing::Values(Place::kCpu)),
                         name_of);

class TrainingOnGpu : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    gpu_ = ops::make_cuda_ops(why_);
    if (gpu_ == nullptr) GTEST_SKIP() << "needs an NVIDIA GPU: " << why_;
  }
  std::unique_ptr<ops::Ops> gpu_;
  std::string why_;
};
INSTANTIATE_TEST_SUITE_P(Recipes, TrainingOnGpu, ::testing::ValuesIn(all_recipes()),
                         [](const auto& test) { return test::test_name(test.param); });

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
    const StepResult found = trainer.step(batches, kLr, step);
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

}  // namespace
}  // namespace qstep::trainer::testing
