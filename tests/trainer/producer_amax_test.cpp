// FP8 with the scale of a tensor takes its amax from the norm or activation, or the gradient of
// one, that made the tensor: which of them are asked, which quantizers are given what they found,
// and that nothing else comes of it.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <map>

#include "tests/support/thread_comm.h"
#include "tests/support/wrapped_ops.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/recipe_testing.h"
#include "tests/trainer/saved_trainer.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/generator.h"
#include "trainer/inference/loaded_model.h"

namespace qstep::trainer::testing {
namespace {

using precision::OperandSlot;
using Counts = std::map<std::string, int64_t>;

constexpr int64_t kMicros = 2, kSteps = 2;
constexpr int64_t kPasses = kMicros * kSteps;
constexpr int64_t kLayers = 4;  // of recipe_model()
constexpr int64_t kCalls = kPasses * kLayers;

Config config_of(const precision::Recipe& recipe) { return recipe_config(recipe, kMicros, kSteps); }
Config config_of(const char* recipe) { return config_of(load_recipe(recipe)); }

int32_t largest_bits(const ops::Tensor& x) {
  int32_t largest = 0;
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t col = 0; col < x.cols; ++col) {
      const ops::Tensor at = x.row_range(row, 1).col_range(col, 1);
      const uint32_t bits = x.dtype == ops::Dtype::kBf16
                                ? static_cast<uint32_t>(at.as<ops::Bf16>()->bits) << 16
                                : std::bit_cast<uint32_t>(*at.as<float>());
      largest = std::max(largest, static_cast<int32_t>(bits & 0x7FFF'FFFFU));
    }
  }
  return largest;
}

// Notes who is asked for an amax and which quantizer is given one, and checks that it is that of
// its tensor. Unless `hands_over`, the quantizers find it themselves.
class AmaxOps final : public test::WrappedOps {
 public:
  explicit AmaxOps(bool hands_over = true) : hands_over_(hands_over) {}

  std::string_view name() const override { return "amax"; }
  bool in_host_memory() const override { return true; }
  ops::Buffer allocate(int64_t bytes) override { return inner_->allocate(bytes); }

  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const Tensor& x, const ops::QuantCall& call) override {
    ops::QuantCall used = call;
    if (call.amax) {
      ++given[fmt::format("{} {}", kLinearNames[call.random.module % kLinearNames.size()],
                          precision::kLinearTensorNames[call.random.slot])];
      EXPECT_EQ(x.data, made_[call.amax.data]) << "the amax of another tensor";
      EXPECT_EQ(largest_bits(x), *call.amax.as<int32_t>());
    }
    if (!hands_over_) used.amax = {};
    inner_->quantize(rowwise, columnwise, x, used);
  }

  Counts asked;  // by call
  Counts given;  // "up x"

 private:
  void run(std::string_view, const std::function<void()>& f) override { f(); }
  // The amax is a call's last tensor, the output its first, behind the sum of a residual norm.
  void look_at(std::string_view call, const Tensors& tensors) override {
    const bool norm = (call.ends_with("norm_forward") || call.ends_with("norm_backward")) &&
                      !call.starts_with("qk_");
    if (!norm && !call.starts_with("activation_")) return;
    if (!tensors.back()) return;
    ++asked[std::string(call)];
    made_[tensors.back().data] = tensors[call.starts_with("residual_") ? 1 : 0].data;
  }

  bool hands_over_;
  std::map<const void*, const void*> made_;  // amax, tensor
};

struct Outcome {
  std::vector<float> losses, norms;
  std::vector<std::byte> weights;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome train(ops::Ops& ops, const Config& config) {
  Trainer trainer(ops, config);
  FixedBatches batches(learnable_batches(kPasses, 700));
  Outcome run;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const StepResult result = trainer.step(batches, 3e-3, step);
    run.losses.push_back(result.loss);
    run.norms.push_back(result.grad_norm);
  }
  run.weights = bytes_of(trainer.parameters().master);
  return run;
}

const Counts kGivenInTraining{{"qkv x", kCalls}, {"attn_out dy", kCalls}, {"up x", kCalls},
                              {"up dy", kCalls}, {"down x", kCalls},      {"down dy", kCalls}};

TEST(ProducerAmax, OfNormsAndActivationsReachesTheQuantizers) {
  AmaxOps ops;
  const Outcome found = train(ops, config_of("fp8-current"));
  // The first norm has no residual to add, the last one nobody to quantize for; and the gradient of
  // the first goes to the embedding.
  EXPECT_EQ((Counts{{"rmsnorm_forward", kPasses},
                    {"residual_rmsnorm_forward", kPasses * (2 * kLayers - 1)},
                    {"rmsnorm_backward", kPasses * 2 * kLayers},
                    {"activation_forward", kCalls},
                    {"activation_backward", kCalls}}),
            ops.asked);
  EXPECT_EQ(kGivenInTraining, ops.given);

  AmaxOps dropping(false);
  EXPECT_TRUE(train(dropping, config_of("fp8-current")) == found) << "other bits";
  EXPECT_EQ(kGivenInTraining, dropping.given);
}

TEST(ProducerAmax, OfLayerNormsAndGelu) {
  Config config = config_of("fp8-current");
  config.model.norm = NormKind::kLayer;
  config.model.activation = ops::Activation::kGelu;
  config.model.bias = true;
  config.model.qk_norm = true;
  AmaxOps ops;
  const Outcome found = train(ops, config);
  EXPECT_EQ((Counts{{"layernorm_forward", kPasses},
                    {"residual_layernorm_forward", kPasses * (2 * kLayers - 1)},
                    {"layernorm_backward", kPasses * 2 * kLayers},
                    {"activation_forward", kCalls},
                    {"activation_backward", kCalls}}),
            ops.asked);
  EXPECT_EQ(kGivenInTraining, ops.given);

  AmaxOps dropping(false);
  EXPECT_TRUE(train(dropping, config) == found) << "other bits";
}

TEST(ProducerAmax, IsAskedForByNoOtherRecipe) {
  for (const char* const recipe : {"bf16", "mxfp8", "nvfp4", "fp8-delayed", "fp8-block"}) {
    AmaxOps ops;
    train(ops, config_of(recipe));
    EXPECT_EQ(Counts(), ops.asked) << recipe;
    EXPECT_EQ(Counts(), ops.given) << recipe;
  }
}

TEST(ProducerAmax, FollowsThePhasesOfARecipe) {
  const precision::OperandTable fp8 = load_recipe("fp8-current").operands;
  AmaxOps ops;
  train(ops, config_of(with_switch(load_recipe("mxfp8"), kSteps, fp8)));
  Counts last_step = kGivenInTraining;
  for (auto& [tensor, calls] : last_step) calls = kMicros * kLayers;
  EXPECT_EQ(last_step, ops.given);
}

// Each makes a part of the tensor, and the largest of the group comes with the quantizers' own
// pass.
TEST(ProducerAmax, IsNotThatOfARankThatSharesTheLayer) {
  Config config = config_of("fp8-current");
  config.parallel.tensor = 2;
  test::run_ranks(2, [&](parallel::Comm& world) {
    omp_set_num_threads(1);
    AmaxOps ops;
    Trainer trainer(ops, config, world);
    FixedBatches batches(learnable_batches(kMicros, 700));
    EXPECT_FALSE(trainer.step(batches, 3e-3, 1).skipped);
    EXPECT_EQ(Counts(), ops.asked);
    EXPECT_EQ(Counts(), ops.given);
  });
}

TEST(ProducerAmax, OfAnEvaluationAsOfARun) {
  const TemporaryFolder folder;
  {
    AmaxOps ops;
    Trainer trainer(ops, config_of("fp8-current"));
    FixedBatches batches(learnable_batches(kMicros, 700));
    trainer.step(batches, 3e-3, 1);
    save_trainer(ops, trainer, 1, folder.path());
  }
  const test::Batch batch = learnable_batch(800);
  const auto loss = [&](AmaxOps& ops, const std::string& recipe) {
    const LoadedModel loaded(ops, folder.path(), recipe, Passes::kMicroBatches);
    return Evaluator(ops, loaded).loss({batch.tokens, batch.targets});
  };
  AmaxOps ops, dropping(false), compute;
  const float found = loss(ops, "");
  EXPECT_EQ((Counts{{"rmsnorm_forward", 1},
                    {"residual_rmsnorm_forward", 2 * kLayers - 1},
                    {"activation_forward", kLayers}}),
            ops.asked);
  EXPECT_EQ((Counts{{"qkv x", kLayers}, {"up x", kLayers}, {"down x", kLayers}}), ops.given);
  EXPECT_EQ(found, loss(dropping, ""));
  loss(compute, "bf16");
  EXPECT_EQ(Counts(), compute.asked);

  // Generation: a prompt, then one row a pass.
  const auto text = [&](AmaxOps& on) {
    const LoadedModel loaded(on, folder.path(), "");
    Generator generator(on, loaded, 8, loaded.config().model.vocab_size);
    SamplingOptions greedy;
    greedy.temperature = 0;
    const auto prompt = std::span(batch.tokens).first(5);
    return generator.generate(prompt, 3, greedy, -1, [](int32_t) { return true; }).tokens;
  };
  AmaxOps generating, generating_dropping(false);
  const std::vector<int32_t> tokens = text(generating);
  EXPECT_EQ((Counts{{"qkv x", 3 * kLayers}, {"up x", 3 * kLayers}, {"down x", 3 * kLayers}}),
            generating.given);
  EXPECT_EQ(tokens, text(generating_dropping));
}

TEST(ProducerAmax, IsNotWantedOfAPassThatQuantizesNothing) {
  Config config = config_of("fp8-current");
  config.precision.eval = EvalPrecision::kCompute;
  AmaxOps ops;
  Trainer trainer(ops, config);
  const test::Batch batch = learnable_batch(800);
  FixedBatches batches({batch});
  trainer.step(batches, 3e-3, 1);
  ops.asked.clear();
  ops.given.clear();
  trainer.evaluate({batch.tokens, batch.targets});
  EXPECT_EQ(Counts(), ops.asked);
  EXPECT_EQ(Counts(), ops.given);
}

// Two places a layer, where a quantizer reads one.
TEST(ProducerAmax, HasMemoryWhereItIsWanted) {
  const auto places = [](const precision::Recipe& recipe, Purpose purpose) {
    const Config c = config_of(recipe);
    ops::Arena measure;
    return PrecisionTensors::lay_out(measure, plan_precision(c), c.model, 128, purpose)
        .amaxes.size();
  };
  const int64_t all = 2 * kLinearsPerBlock * kLayers;
  const precision::Recipe fp8 = load_recipe("fp8-current");
  EXPECT_EQ(all, places(fp8, Purpose::kTraining));
  EXPECT_EQ(all, places(fp8, Purpose::kEvaluation));
  for (const char* const recipe : {"bf16", "mxfp8", "nvfp4", "fp8-delayed"}) {
    EXPECT_EQ(0, places(load_recipe(recipe), Purpose::kTraining)) << recipe;
  }
  // One that only wgrad reads is not there in an evaluation.
  precision::Recipe wgrad = load_recipe("mxfp8");
  wgrad.operands[OperandSlot::kXWgrad] = fp8.operands[OperandSlot::kXWgrad];
  EXPECT_EQ(all, places(wgrad, Purpose::kTraining));
  EXPECT_EQ(0, places(wgrad, Purpose::kEvaluation));
}

}  // namespace
}  // namespace qstep::trainer::testing
