#include "tests/trainer/step_testing.h"

#include <cstring>

#include "precision/bf16.h"
#include "tests/support/compare.h"

namespace qstep::trainer::testing {

ModelConfig tiny_model() {
  ModelConfig m;
  m.vocab_size = 37;
  m.n_layers = 2;
  m.width = 20;
  m.n_heads = 3;
  m.n_kv_heads = 3;
  m.head_dim = 6;
  m.ffn_width = 28;
  m.max_seq_len = 11;
  return m;
}

std::vector<ModelCase> model_cases() {
  const auto with = [](auto&& change) {
    ModelConfig m = tiny_model();
    change(m);
    return m;
  };
  return {
      {"Llama", with([](ModelConfig&) {})},
      {"LlamaGroupedQueries", with([](ModelConfig& m) {
         m.n_heads = 6;
         m.n_kv_heads = 2;
         m.head_dim = 10;
         m.rope_theta = 500;
       })},
      {"Gpt2", with([](ModelConfig& m) {
         m.norm = NormKind::kLayer;
         m.position = PositionKind::kLearned;
         m.activation = ops::Activation::kGelu;
         m.bias = true;
         m.tied_head = true;
         m.head_dim = 7;
       })},
      {"QkNormTiedRelu2", with([](ModelConfig& m) {
         m.activation = ops::Activation::kRelu2;
         m.qk_norm = true;
         m.tied_head = true;
         m.n_kv_heads = 1;
         m.norm_eps = 1e-3;
       })},
      {"LayerNormBiasSwigluUntied", with([](ModelConfig& m) {
         m.norm = NormKind::kLayer;
         m.bias = true;
         m.qk_norm = true;
       })},
      {"OneLayerLearnedOddHead", with([](ModelConfig& m) {
         m.position = PositionKind::kLearned;
         m.n_layers = 1;
         m.n_heads = 1;
         m.n_kv_heads = 1;
         m.head_dim = 5;
         m.ffn_width = 1;
         m.vocab_size = 129;
       })},
  };
}

Config step_config(const ModelConfig& model, int64_t batch, int64_t seq_len) {
  Config c;
  c.model = model;
  c.train.global_batch = batch;
  c.train.micro_batch = batch;
  c.train.seq_len = seq_len;
  c.optimizer.clip_norm = 0;
  set_recipe(c, "fp32");
  return c;
}

void fill_random(Trainer& trainer, uint64_t seed) {
  test::Random random(seed);
  for_each_weight(trainer.config().model, trainer.parameters().master.views,
                  [&](const WeightSpec& spec, ops::Tensor& view) {
                    const double centre = spec.init == Init::kOne ? 1.0 : 0.0;
                    float* const x = view.as<float>();
                    for (int64_t i = 0; i < spec.used_rows * spec.cols; ++i) {
                      const auto value = static_cast<float>(centre + random.uniform(-0.4, 0.4));
                      x[i] = precision::to_float(precision::to_bf16(value));
                    }
                  });
  trainer.refresh_weights();
}

test::Weights read_weights(const ModelConfig& model, ParameterGroup& group) {
  test::Weights weights;
  for_each_weight(model, group.views, [&](const WeightSpec& spec, ops::Tensor& view) {
    test::Matrix m(spec.used_rows, spec.cols);
    for (size_t i = 0; i < m.v.size(); ++i) m.v[i] = static_cast<double>(view.as<float>()[i]);
    weights[spec.name] = std::move(m);
  });
  return weights;
}

test::Batch random_batch(const ModelConfig& model, int64_t batch, int64_t seq_len, uint64_t seed) {
  test::Random random(seed);
  test::Batch b{.batch = batch, .seq_len = seq_len, .tokens = {}, .targets = {}};
  for (int64_t i = 0; i < batch * seq_len; ++i) {
    b.tokens.push_back(static_cast<int32_t>(random.integer(0, model.vocab_size - 1)));
    b.targets.push_back(static_cast<int32_t>(random.integer(0, model.vocab_size - 1)));
  }
  return b;
}

std::vector<std::byte> bytes_of(const ParameterGroup& group) {
  std::vector<std::byte> bytes(static_cast<size_t>(group.flat.bytes()));
  std::memcpy(bytes.data(), group.flat.data, bytes.size());
  return bytes;
}

}  // namespace qstep::trainer::testing
