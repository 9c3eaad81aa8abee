// A checkpoint of a quantized run is evaluated and generates as the run itself computed, or in
// BF16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/test_name.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/saved_trainer.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/generator.h"
#include "trainer/inference/loaded_model.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kSteps = 6;
constexpr int64_t kPrompt = 5;
constexpr double kShareOfOther = 0.05;

// -ln softmax(logits)[target]
double loss_of(const std::vector<float>& logits, int32_t target) {
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - largest);
  return std::log(sum) + largest - static_cast<double>(logits[static_cast<size_t>(target)]);
}

// A model for one sequence, with room for its keys and values.
struct OneSequence {
  OneSequence(ops::Ops& ops, const LoadedModel& loaded) {
    const ModelConfig& m = loaded.config().model;
    const ops::Dtype dtype = loaded.config().compute_dtype();
    PrecisionTensors quantized;
    const auto lay_out = [&](ops::Arena arena) {
      caches.clear();
      activations = lay_out_activations(arena, m, 1, kRecipeSeqLen, dtype, Purpose::kEvaluation);
      quantized = loaded.lay_out_precision(arena, kRecipeSeqLen);
      for (int64_t l = 0; l < m.n_layers; ++l) {
        const int64_t width = m.n_kv_heads * m.head_dim;
        caches.push_back({.k = arena.take("cache", dtype, kRecipeSeqLen, width),
                          .v = arena.take("cache", dtype, kRecipeSeqLen, width)});
      }
      return arena.peak_bytes();
    };
    buffer = ops.allocate(lay_out(ops::Arena()));
    lay_out(ops::Arena(buffer));
    precision = loaded.precision(std::move(quantized));
    model = std::make_unique<Model>(ops, m, loaded.weights(), activations, 1, kRecipeSeqLen,
                                    precision.get());
  }
  ops::Buffer buffer;
  ModelActivations activations;
  std::vector<KvCache> caches;
  std::unique_ptr<ModelPrecision> precision;
  std::unique_ptr<Model> model;
};

class RecipeCheckpoint : public ::testing::TestWithParam<std::string> {
 protected:
  // Trains, and saves behind the step.
  void train_and_save(int64_t steps) {
    ops_ = ops::make_cpu_ops();
    trainer_ = std::make_unique<Trainer>(*ops_, config_);
    FixedBatches batches(learnable_batches(steps, 300));
    for (int64_t step = 1; step <= steps; ++step) trainer_->step(batches, 3e-3, step);
    save_trainer(*ops_, *trainer_, steps, folder_.path());
  }

  // Mean loss of the checkpoint, as `qstep eval --precision` computes it.
  double loaded_loss(const std::string& precision) const {
    const LoadedModel loaded(*ops_, folder_.path(), precision, Passes::kMicroBatches);
    return static_cast<double>(Evaluator(*ops_, loaded).loss({batch_.tokens, batch_.targets}));
  }

  // Of the tokens of batch_'s first sequence, by one forward pass.
  std::vector<double> losses_of_one_sequence(const std::string& precision) const {
    const LoadedModel loaded(*ops_, folder_.path(), precision);
    OneSequence run(*ops_, loaded);
    ops_->upload(run.activations.tokens, batch_.tokens.data());
    ops_->upload(run.activations.targets, batch_.targets.data());
    run.model->forward(*ops_);
    const float* const losses = run.activations.losses.as<float>();
    return {losses + kPrompt - 1, losses + kRecipeSeqLen};
  }

  // The same from a prompt of kPrompt tokens on, then token by token as text is generated.
  std::vector<double> losses_through_the_cache(const std::string& precision) const {
    const LoadedModel loaded(*ops_, folder_.path(), precision);
    OneSequence run(*ops_, loaded);
    std::vector<double> losses;
    std::vector<float> logits(static_cast<size_t>(loaded.config().model.vocab_size));
    for (int64_t first = 0; first < kRecipeSeqLen;) {
      const int64_t n = first == 0 ? kPrompt : 1;
      ops_->upload(run.activations.tokens.col_range(0, n), batch_.tokens.data() + first);
      ops_->cast(ops::view(std::span(logits)),
                 run.model->forward_cached(*ops_, n, run.caches, first));
      first += n;
      losses.push_back(loss_of(logits, batch_.targets[static_cast<size_t>(first - 1)]));
    }
    return losses;
  }

  double run_loss() {
    return static_cast<double>(trainer_->evaluate({batch_.tokens, batch_.targets}));
  }

  TemporaryFolder folder_;
  Config config_ = recipe_config(load_recipe(GetParam()), 1, kSteps);
  test::Batch batch_ = learnable_batch(301);
  std::unique_ptr<ops::Ops> ops_;
  std::unique_ptr<Trainer> trainer_;
};

TEST_P(RecipeCheckpoint, IsEvaluatedAsInTheRun) {
  train_and_save(3);
  EXPECT_EQ(run_loss(), loaded_loss(""));
  EXPECT_EQ(loaded_loss(""), loaded_loss(GetParam()));
  EXPECT_NE(loaded_loss(""), loaded_loss("bf16"));
  EXPECT_NEAR(loaded_loss(""), loaded_loss("bf16"), 0.05);

  // A run that evaluates in BF16 does so from its checkpoint too.
  config_.precision.eval = EvalPrecision::kCompute;
  train_and_save(3);
  EXPECT_EQ(run_loss(), loaded_loss(""));
  EXPECT_EQ(loaded_loss("bf16"), loaded_loss(""));
  EXPECT_NE(loaded_loss("bf16"), loaded_loss(GetParam()));
}

TEST_P(RecipeCheckpoint, GeneratesTheSameTextAgain) {
  train_and_save(kSteps);
  const std::vector<int32_t> prompt{3, 1, 4, 1, 5};
  const auto always = [](int32_t) { return true; };
  for (const std::string& precision : {GetParam(), std::string("bf16")}) {
    const LoadedModel loaded(*ops_, folder_.path(), precision);
    Generator generator(*ops_, loaded, kRecipeSeqLen, loaded.config().model.vocab_size);
    const auto text = [&] {
      return generator.generate(prompt, 20, {.temperature = 0}, -1, always).tokens;
    };
    const std::vector<int32_t> first = text();
    EXPECT_EQ(20u, first.size()) << precision;
    EXPECT_EQ(first, text()) << precision;
  }
}

// ---- generation against a whole forward pass -------------------------------------------------

class RowByRow : public RecipeCheckpoint {};

// Recipes whose forward operands have a scale per row of x or from earlier steps: a token's logits
// do not depend on the tokens that are computed with it. Pieces of a sequence through the cache
// give the losses of one forward pass over all of it, up to what rounding in another order turns
// over; BF16 or another quantizer would be as far off as BF16 is.
TEST_P(RowByRow, CachedLogitsAreThoseOfTheWholeForwardPass) {
  train_and_save(kSteps);
  const std::vector<double> whole = losses_of_one_sequence(GetParam()),
                            pieces = losses_through_the_cache(GetParam()),
                            bf16 = losses_of_one_sequence("bf16");
  double difference = 0, other = 0;
  for (size_t t = 0; t < whole.size(); ++t) {
    difference += std::fabs(pieces[t] - whole[t]);
    other += std::fabs(bf16[t] - whole[t]);
  }
  RecordProperty("difference", fmt::format("{:.3g}", difference));
  RecordProperty("bf16", fmt::format("{:.3g}", other));
  EXPECT_GT(other, 0);
  EXPECT_LT(difference, kShareOfOther * other);
}

INSTANTIATE_TEST_SUITE_P(Recipes, RowByRow,
                         ::testing::Values("mxfp8", "fp8-delayed", "fp8-block-fp32"),
                         [](const auto& test) { return test::test_name(test.param); });

INSTANTIATE_TEST_SUITE_P(Recipes, RecipeCheckpoint,
                         ::testing::Values("nvfp4", "fp8-delayed", "mxfp8", "fp8-block-fp32",
                                           "quartet2", "tetrajet2"),
                         [](const auto& test) { return test::test_name(test.param); });

// The phase of the checkpoint's step: forward operands are BF16 from the switch on.
TEST(RecipeCheckpointPhase, IsThatOfItsStep) {
  const precision::Recipe late = with_switch(load_recipe("nvfp4"), 3, precision::OperandTable{});
  for (const int64_t steps : {2, 3}) {
    const Config config = recipe_config(late, 1, 4);
    const auto ops = ops::make_cpu_ops();
    Trainer trainer(*ops, config);
    FixedBatches batches(learnable_batches(steps, 300));
    for (int64_t step = 1; step <= steps; ++step) trainer.step(batches, 3e-3, step);
    const test::Batch b = learnable_batch(301);
    const float in_recipe = trainer.evaluate({b.tokens, b.targets});

    Config in_bf16 = config;
    in_bf16.precision.eval = EvalPrecision::kCompute;
    Trainer other(*ops, in_bf16);
    const auto from = named_tensors(trainer.shards(), trainer.parameters());
    const auto to = named_tensors(other.shards(), other.parameters());
    for (size_t i = 0; i < from.size(); ++i) ops->upload(to[i].tensor, from[i].tensor.data);
    other.refresh_weights();
    const float plain = other.evaluate({b.tokens, b.targets});
    EXPECT_EQ(steps == 3, in_recipe == plain) << "behind step " << steps;
  }
}

// Scales of earlier steps cannot be made up.
TEST(DelayedScales, AreAskedOfTheCheckpoint) {
  const TemporaryFolder folder;
  const auto ops = ops::make_cpu_ops();
  const Config config = recipe_config(load_recipe("bf16"), 1, 4);
  Trainer trainer(*ops, config);
  CheckpointState state;
  state.vocab_size = config.model.vocab_size;
  state.config_toml = to_toml(config);
  save_checkpoint(folder.path(), state, named_tensors(trainer.shards(), trainer.parameters()), 0);
  try {
    const LoadedModel loaded(*ops, folder.path(), "fp8-delayed");
    ADD_FAILURE() << "expected an Error";
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kConfig, error.code());
    EXPECT_NE(std::string::npos, std::string(error.what()).find("fp8-current")) << error.what();
  }
}

// A recipe that was not trained with is held against the model like the run's own.
TEST(OtherRecipe, MustFitTheModel) {
  const TemporaryFolder folder;
  const auto ops = ops::make_cpu_ops();
  Config config = recipe_config(load_recipe("bf16"), 1, 4);
  config.model.ffn_width = 120;
  Trainer trainer(*ops, config);
  CheckpointState state;
  state.vocab_size = config.model.vocab_size;
  state.config_toml = to_toml(config);
  save_checkpoint(folder.path(), state, named_tensors(trainer.shards(), trainer.parameters()), 0);
  EXPECT_EQ("fp8-current emulated",
            LoadedModel(*ops, folder.path(), "fp8-current").precision_text());
  try {
    const LoadedModel loaded(*ops, folder.path(), "mxfp8");
    ADD_FAILURE() << "expected an Error";
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kConfig, error.code());
    EXPECT_NE(std::string::npos, std::string(error.what()).find("model.ffn_width = 120"))
        << error.what();
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
