// What the tests of recipes share: a model that every block size divides, and text it can learn.
#pragma once

#include <string>
#include <vector>

#include "tests/support/compare.h"
#include "tests/trainer/step_testing.h"
#include "trainer/config/recipe_file.h"

namespace qstep::trainer::testing {

inline constexpr int64_t kRecipeBatch = 4, kRecipeSeqLen = 32;  // 128 tokens

// Dimensions are multiples of 128, the largest block.
inline ModelConfig recipe_model() {
  ModelConfig m;
  m.vocab_size = 61;
  m.n_layers = 4;
  m.width = 128;
  m.n_heads = 2;
  m.n_kv_heads = 2;
  m.head_dim = 64;
  m.ffn_width = 128;
  m.max_seq_len = kRecipeSeqLen;
  return m;
}

inline Config recipe_config(const precision::Recipe& recipe, int64_t n_micros, int64_t n_steps) {
  Config c = step_config(recipe_model(), kRecipeBatch, kRecipeSeqLen);
  c.train.global_batch = kRecipeBatch * n_micros;
  c.train.steps = n_steps;
  c.optimizer.clip_norm = 1.0;
  c.precision.recipe = recipe.name;
  c.precision.loaded = recipe;
  return c;
}

// Every token is followed by one of two others: all but ln 2 of the ln 61 nats can be learned.
inline test::Batch learnable_batch(uint64_t seed) {
  const int64_t V = recipe_model().vocab_size;
  test::Random random(seed);
  test::Batch b{.batch = kRecipeBatch, .seq_len = kRecipeSeqLen, .tokens = {}, .targets = {}};
  for (int64_t sequence = 0; sequence < kRecipeBatch; ++sequence) {
    int64_t token = random.integer(0, V - 1);
    for (int64_t t = 0; t < kRecipeSeqLen; ++t) {
      b.tokens.push_back(static_cast<int32_t>(token));
      token = (token * 3 + random.integer(0, 1)) % V;
      b.targets.push_back(static_cast<int32_t>(token));
    }
  }
  return b;
}

// Other batches in every step.
inline std::vector<test::Batch> learnable_batches(int64_t n, uint64_t seed) {
  std::vector<test::Batch> batches;
  for (int64_t i = 0; i < n; ++i) {
    batches.push_back(learnable_batch(seed + static_cast<uint64_t>(i)));
  }
  return batches;
}

// Changes every weight at random by at most so much of itself; of a rank that has all of them, in
// host memory.
inline void disturb(Trainer& trainer, double relative, uint64_t seed) {
  test::Random random(seed);
  const ops::Tensor& master = trainer.parameters().master.flat;
  for (int64_t i = 0; i < master.size(); ++i) {
    float& w = master.as<float>()[i];
    w = static_cast<float>(static_cast<double>(w) * (1 + relative * random.uniform(-1, 1)));
  }
  trainer.refresh_weights();
}

// The recipe with other operands from a step on.
inline precision::Recipe with_switch(precision::Recipe recipe, int64_t from_step,
                                     const precision::OperandTable& operands) {
  precision::RecipeSwitch s;
  s.from_step = from_step;
  s.given.fill(true);
  s.operands = operands;
  recipe.switches.push_back(s);
  return recipe;
}

}  // namespace qstep::trainer::testing
