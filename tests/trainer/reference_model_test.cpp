// The reference proves itself: its gradients are those of its own loss, by central differences.
#include "tests/support/reference_model.h"

#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/trainer/step_testing.h"

namespace qstep::trainer::testing {
namespace {

class ReferenceModel : public ::testing::TestWithParam<ModelCase> {};

test::Weights random_weights(const ModelConfig& model, uint64_t seed) {
  test::Random random(seed);
  test::Weights weights = test::zero_weights(model);
  for (auto& [name, weight] : weights) {
    const double centre = name.find("norm") != std::string::npos && name.ends_with(".weight");
    for (double& x : weight.v) x = centre + random.uniform(-0.4, 0.4);
  }
  return weights;
}

TEST_P(ReferenceModel, GradientsAreThoseOfTheLoss) {
  ModelConfig model = GetParam().model;
  model.vocab_size = 7;
  model.width = 4;
  model.head_dim = model.position == PositionKind::kRope ? 2 : 3;
  model.ffn_width = 3;
  model.max_seq_len = 3;
  const test::Batch batch = random_batch(model, 2, 3, 31);
  const test::Weights weights = random_weights(model, 32);
  const test::ReferenceResult result = test::reference_forward_backward(model, weights, batch);
  for (const auto& [name, weight] : weights) {
    const auto loss = [&](const std::vector<double>& values) {
      test::Weights moved = weights;
      moved.at(name).v = values;
      return test::reference_forward(model, moved, batch).loss;
    };
    test::expect_gradient(loss, weight.v, result.grads.at(name).v, name);
  }
}

TEST_P(ReferenceModel, HasTheWeightsOfTheList) {
  const ModelConfig& model = GetParam().model;
  test::Weights weights = test::zero_weights(model);
  for (const WeightSpec& spec : weight_list(model)) {
    const auto found = weights.find(spec.name);
    ASSERT_NE(found, weights.end()) << spec.name;
    EXPECT_EQ(spec.used_rows, found->second.rows) << spec.name;
    EXPECT_EQ(spec.cols, found->second.cols) << spec.name;
    EXPECT_EQ(spec.decay == Decay::kYes, found->second.rows > 1) << spec.name;
    weights.erase(found);
  }
  EXPECT_TRUE(weights.empty()) << weights.begin()->first;
}

INSTANTIATE_TEST_SUITE_P(Models, ReferenceModel, ::testing::ValuesIn(model_cases()), case_name);

}  // namespace
}  // namespace qstep::trainer::testing
