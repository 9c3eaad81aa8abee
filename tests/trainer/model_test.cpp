// Loss and every gradient of one step against the FP64 reference.
#include "trainer/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/compare.h"
#include "tests/trainer/step_testing.h"

namespace qstep::trainer::testing {
namespace {

// The bound. How far rounding carries is a property of model and data, and the reference can
// measure it: it runs again with every stored value and every sum off by as much as the precision
// allows, at random. The largest change of a tensor's elements over kTrials such runs, times
// kFactor, bounds the error of the product, which rounds the same values once each, in an order of
// its own.
constexpr int kTrials = 6;
constexpr double kFactor = 4;

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::fabs(v));
  return most;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

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

    const test::ReferenceResult exact = test::reference_forward_backward(model, weights, batch);
    double loss_bound = 0;
    std::map<std::string, double> bounds;
    for (int trial = 0; trial < kTrials; ++trial) {
      const test::ReferenceResult rounded = test::reference_forward_backward(
          model, weights, batch,
          test::Rounding(test::kF32Roundoff, store, 100 + static_cast<uint64_t>(trial)));
      loss_bound = std::max(loss_bound, std::fabs(rounded.loss - exact.loss));
      for (const auto& [name, grad] : exact.grads) {
        double& bound = bounds[name];
        bound = std::max(bound, largest_difference(rounded.grads.at(name).v, grad.v));
      }
    }

    FixedBatches batches({batch});
    const StepResult step = trainer.step(batches, 0.0, 1);
    loss_bound = kFactor * std::max(loss_bound, test::kF32Roundoff * exact.loss);
    EXPECT_NEAR(exact.loss, static_cast<double>(step.loss), loss_bound);
    double worst = std::fabs(exact.loss - static_cast<double>(step.loss)) / loss_bound;
    double squares = 0;
    test::Weights found = read_weights(model, trainer.gradients());
    for (const auto& [name, grad] : exact.grads) {
      const double bound =
          kFactor * std::max(bounds.at(name), test::kF32Roundoff * largest(grad.v));
      test::expect_within(grad.v, found.at(name).v, test::Bound{0, bound}, name);
      worst = std::max(worst, largest_difference(grad.v, found.at(name).v) / bound);
      for (const double g : grad.v) squares += g * g;
    }
    // No bound may be so wide that it says nothing.
    for (const auto& [name, grad] : exact.grads) {
      EXPECT_LT(kFactor * bounds.at(name), 0.5 * largest(grad.v)) << name;
    }
    const double norm_bound = 64 * store * std::sqrt(squares);
    EXPECT_NEAR(std::sqrt(squares), static_cast<double>(step.grad_norm), norm_bound);
    RecordProperty("worst_error_over_bound", fmt::format("{:.3f}", worst));
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
