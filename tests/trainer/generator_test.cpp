// Generation with a cache against the whole forward pass of the FP64 reference, position by
// position.
#include "trainer/inference/generator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "tests/support/compare.h"
#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/step_testing.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kPositions = 11;
// As in model_test: what random roundings of the reference do, times kFactor.
constexpr int kTrials = 6;
constexpr double kFactor = 4;

class Generation : public ::testing::TestWithParam<ModelCase> {
 protected:
  const ModelConfig& model() const { return GetParam().model; }

  // A checkpoint with random weights.
  void save(Trainer& trainer) const {
    fill_random(trainer, 21);
    CheckpointState state;
    state.vocab_size = model().vocab_size;
    state.config_toml = to_toml(trainer.config());
    state.tokenizer = "bytes";
    save_checkpoint(folder_.path(), state, named_tensors(trainer.shards(), trainer.parameters()),
                    0);
  }

  static test::Batch one_sequence(std::vector<int32_t> tokens) {
    test::Batch batch{.batch = 1,
                      .seq_len = static_cast<int64_t>(tokens.size()),
                      .tokens = tokens,
                      .targets = std::move(tokens)};
    return batch;
  }

  TemporaryFolder folder_;
};

TEST_P(Generation, CachedLogitsAreThoseOfTheWholeForwardPass) {
  for (const std::string recipe : {"fp32", "bf16"}) {
    const auto ops = ops::make_cpu_ops();
    Config config = step_config(model(), 1, kPositions);
    set_recipe(config, recipe);
    Trainer trainer(*ops, config);
    fill_random(trainer, 21);
    const test::Weights weights = read_weights(model(), trainer.parameters().master);
    const test::Batch batch = random_batch(model(), 1, kPositions, 22);

    const test::Matrix exact = test::reference_forward(model(), weights, batch).logits;
    const double store = recipe == "fp32" ? test::kF32Roundoff : test::kBf16Roundoff;
    double bound = 0;
    for (uint64_t trial = 0; trial < kTrials; ++trial) {
      const test::Matrix rough =
          test::reference_forward(model(), weights, batch,
                                  test::Rounding(test::kF32Roundoff, store, 200 + trial))
              .logits;
      for (size_t i = 0; i < exact.v.size(); ++i) {
        bound = std::max(bound, kFactor * std::fabs(rough.v[i] - exact.v[i]));
      }
    }

    const ops::Dtype dtype = config.compute_dtype();
    const auto lay_out = [&](ops::Arena& arena, std::vector<KvCache>& caches) {
      for (int64_t l = 0; l < model().n_layers; ++l) {
        const int64_t width = model().n_kv_heads * model().head_dim;
        caches.push_back({.k = arena.take("cache", dtype, kPositions, width),
                          .v = arena.take("cache", dtype, kPositions, width)});
      }
      return lay_out_activations(arena, model(), 1, kPositions, dtype, Purpose::kEvaluation);
    };
    ops::Arena measure;
    std::vector<KvCache> unplaced, caches;
    lay_out(measure, unplaced);
    const ops::Buffer buffer = ops->allocate(measure.peak_bytes());
    ops::Arena place(buffer);
    const ModelActivations activations = lay_out(place, caches);
    Model generating(*ops, model(), trainer.parameters().weight.views, activations, 1, kPositions);

    // A prompt of four, then pieces of three, one, one, two.
    int64_t first = 0;
    for (const int64_t n : {4, 3, 1, 1, 2}) {
      ops->upload(activations.tokens.col_range(0, n), batch.tokens.data() + first);
      const ops::Tensor logits = generating.forward_cached(*ops, n, caches, first);
      first += n;
      ASSERT_EQ(model().vocab_size, logits.cols);
      std::vector<float> found(static_cast<size_t>(logits.cols));
      ops->cast(ops::view(std::span(found)), logits);
      for (int64_t v = 0; v < logits.cols; ++v) {
        ASSERT_NEAR(exact.at(first - 1, v), static_cast<double>(found[static_cast<size_t>(v)]),
                    bound)
            << recipe << ": position " << first - 1 << ", token " << v;
      }
    }
  }
}

TEST_P(Generation, GreedyTextIsThatOfTheReference) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, step_config(model(), 1, kPositions));
  save(trainer);
  const test::Weights weights = read_weights(model(), trainer.parameters().master);
  const LoadedModel loaded(*ops, folder_.path(), "");
  Generator generator(*ops, loaded, kPositions, loaded.config().model.vocab_size);
  const std::vector<int32_t> prompt{3, 1, 4};
  const auto always = [](int32_t) { return true; };
  const GenerationResult result = generator.generate(prompt, 100, {.temperature = 0}, -1, always);
  // The last token comes from the last position that fits.
  ASSERT_EQ(static_cast<size_t>(kPositions) - prompt.size() + 1, result.tokens.size());
  std::vector<int32_t> text = prompt;
  for (const int32_t token : result.tokens) {
    const test::Matrix logits =
        test::reference_forward(model(), weights, one_sequence(text)).logits;
    const auto last = logits.v.end() - logits.cols;
    EXPECT_EQ(std::max_element(last, logits.v.end()) - last, token) << "position " << text.size();
    text.push_back(token);
    if (static_cast<int64_t>(text.size()) > model().max_seq_len) break;
  }
  // The same model says the same again, stops where it is told to, and hears its listener.
  EXPECT_EQ(result.tokens, generator.generate(prompt, 100, {.temperature = 0}, -1, always).tokens);
  EXPECT_EQ(2u, generator.generate(prompt, 2, {.temperature = 0}, -1, always).tokens.size());
  EXPECT_TRUE(
      generator.generate(prompt, 5, {.temperature = 0}, result.tokens[0], always).tokens.empty());
  EXPECT_EQ(1u, generator.generate(prompt, 5, {.temperature = 0}, -1, [](int32_t) { return false; })
                    .tokens.size());
}

// From files, so far.
int64_t bytes_read() {
  std::ifstream file("/proc/self/io");
  std::string name;
  int64_t bytes = 0;
  file >> name >> bytes;
  EXPECT_EQ("rchar:", name);
  return bytes;
}

// The newest of a folder was verified when it was chosen.
TEST_P(Generation, ACheckpointIsVerifiedOnce) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, step_config(model(), 1, kPositions));
  save(trainer);
  const auto loading = [&](const std::string& path) {
    const int64_t before = bytes_read();
    const LoadedModel loaded(*ops, path, "");
    return bytes_read() - before;
  };
  const std::string checkpoint = folder_ / "step-00000000";
  const int64_t as_named = loading(checkpoint), as_newest = loading(folder_.path());
  const int64_t size = inspect_checkpoint(checkpoint, Verify::kFast).bytes;
  EXPECT_GT(as_named, size);
  EXPECT_LT(as_newest, as_named + size / 2);  // manifests are read more often
}

TEST_P(Generation, RefusesMorePositionsThanWereLearned) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, step_config(model(), 1, kPositions));
  save(trainer);
  const LoadedModel loaded(*ops, folder_.path(), "");
  const ops::ExitCode code =
      code_of([&] { Generator(*ops, loaded, model().max_seq_len + 1, model().vocab_size); });
  const bool learned = model().position == PositionKind::kLearned;
  EXPECT_EQ(learned ? ops::ExitCode::kConfig : ops::ExitCode::kOk, code);
}

INSTANTIATE_TEST_SUITE_P(Models, Generation, ::testing::ValuesIn(model_cases()), case_name);

}  // namespace
}  // namespace qstep::trainer::testing
