// Loss and every gradient of one step against the FP64 reference.
#include "trainer/model/model.h"

#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/trainer/gradient_bounds.h"
#include "tests/trainer/step_testing.h"

namespace qstep::trainer::testing {
namespace {

class ModelGradient : public ::testing::TestWithParam<ModelCase> {
 protected:
  void expect_reference(const std::string& recipe, double store) {
    constexpr int64_t B = 2, T = 7;
    const ModelConfig& model = GetParam().model;
    Config config = step_config(model, B, T);
    set_recipe(config, recipe);
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config);
    fill_random(trainer, 5);
    const test::Batch batch = random_batch(model, B, T, 6);
    const test::Weights weights = read_weights(model, trainer.parameters().master);

    const GradientBounds bounds = gradient_bounds(model, weights, batch, store);
    FixedBatches batches({batch});
    const StepResult step = trainer.step(batches, 0.0, 1);
    expect_within(bounds, step.loss, step.grad_norm, read_weights(model, trainer.gradients()));
  }
};

TEST_P(ModelGradient, Fp32) { expect_reference("fp32", test::kF32Roundoff); }
TEST_P(ModelGradient, Bf16) { expect_reference("bf16", test::kBf16Roundoff); }

// Rows of the vocabulary that pad it to a multiple of 128 stay exactly zero, with their moments.
TEST_P(ModelGradient, PaddingRowsStayZero) {
  const ModelConfig& model = GetParam().model;
  ASSERT_GT(model.padded_vocab(), model.vocab_size);
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, step_config(model, 2, 7));
  FixedBatches batches({random_batch(model, 2, 7, 8)});
  for (int64_t update = 1; update <= 3; ++update) trainer.step(batches, 0.01, update);
  Parameters& p = trainer.parameters();
  for (ParameterGroup* group : {&p.master, &p.adam_m, &p.adam_v, &trainer.gradients()}) {
    for_each_weight(model, group->views, [&](const WeightSpec& spec, ops::Tensor& view) {
      const float* const x = view.as<float>();
      for (int64_t i = spec.used_rows * spec.cols; i < view.size(); ++i) {
        ASSERT_EQ(0u, std::bit_cast<uint32_t>(x[i])) << spec.name << " at " << i;
      }
    });
  }
}

// The loss of evaluation is the loss of training.
TEST_P(ModelGradient, EvaluationGivesTheTrainingLoss) {
  const ModelConfig& model = GetParam().model;
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, step_config(model, 2, 7));
  const test::Batch batch = random_batch(model, 2, 7, 9);
  FixedBatches batches({batch});
  const float evaluated = trainer.evaluate({batch.tokens, batch.targets});
  EXPECT_EQ(evaluated, trainer.step(batches, 0.0, 1).loss);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelGradient, ::testing::ValuesIn(model_cases()), case_name);

}  // namespace
}  // namespace qstep::trainer::testing
