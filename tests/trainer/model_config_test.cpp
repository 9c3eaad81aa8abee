#include "trainer/config/model_config.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "trainer/model/weights.h"

namespace qstep::trainer {
namespace {

// Published parameter counts: the models' cards and reports, which count every tensor of the
// release.
struct Published {
  const char* preset;
  int64_t n_parameters;
};
class PublishedSize : public testing::TestWithParam<Published> {};

TEST_P(PublishedSize, IsCountedExactly) {
  EXPECT_EQ(n_parameters(preset_model(GetParam().preset)), GetParam().n_parameters);
}

INSTANTIATE_TEST_SUITE_P(
    Models, PublishedSize,
    testing::Values(Published{"gpt2-124m", 124'439'808}, Published{"gpt2-355m", 354'823'168},
                    Published{"gpt2-774m", 774'030'080}, Published{"gpt2-1.5b", 1'557'611'200},
                    Published{"llama-1b", 1'235'814'400}, Published{"llama-3b", 3'212'749'824},
                    Published{"llama-8b", 8'030'261'248}, Published{"llama-70b", 70'553'706'496},
                    Published{"llama-405b", 405'853'388'800}, Published{"qwen3-0.6b", 596'049'920}),
    [](const auto& model) {
      std::string name = model.param.preset;
      for (char& c : name) c = c == '-' || c == '.' ? '_' : c;
      return name;
    });

// The formula and the list of weights are written independently; both must count the same.
TEST(NParameters, EqualTheListOfWeights) {
  for (const Preset& preset : presets()) {
    ModelConfig model = preset.model;
    if (model.vocab_size == 0) model.vocab_size = kAssumedVocab;
    int64_t n = 0;
    for (const WeightSpec& weight : weight_list(model)) n += weight.used_rows * weight.cols;
    EXPECT_EQ(n_parameters(model), n) << preset.name;
  }
}

TEST(FlopsPerToken, Llama8bAt8192) {
  // Block matrices 6.979e9 and head 0.525e9 parameters, six flops each, and attention in full or
  // half: 45.03 + 12.89 and 45.03 + 6.44 GFLOP.
  const ModelConfig& model = preset_model("llama-8b");
  EXPECT_NEAR(flops_per_token(model, 8192, AttentionCount::kFull), 57.91e9, 0.005e9);
  EXPECT_NEAR(flops_per_token(model, 8192, AttentionCount::kCausal), 51.47e9, 0.005e9);
}

TEST(FlopsPerToken, CountsTheCausalTriangleExactly) {
  ModelConfig model = preset_model("llama-1m");
  model.vocab_size = 100;
  // Position t attends to t + 1 keys; 2 D flops for q k^T and 2 D for p v, tripled by the backward
  // pass.
  const int64_t T = 7;
  double attention = 0;
  for (int64_t t = 0; t < T; ++t) {
    attention += static_cast<double>(3 * 4 * model.n_layers * model.q_width() * (t + 1));
  }
  const double full = flops_per_token(model, T, AttentionCount::kFull);
  const double causal = flops_per_token(model, T, AttentionCount::kCausal);
  const double matrices = full - static_cast<double>(12 * model.n_layers * model.q_width() * T);
  EXPECT_DOUBLE_EQ(causal, matrices + attention / T);
}

TEST(Presets, AreSoundAndNamedOnce) {
  std::vector<std::string_view> names;
  for (const Preset& preset : presets()) {
    EXPECT_EQ(preset.model.preset, preset.name);
    EXPECT_TRUE(model_problems(preset.model, preset.model.max_seq_len).empty()) << preset.name;
    EXPECT_EQ(std::count(names.begin(), names.end(), preset.name), 0) << preset.name;
    names.push_back(preset.name);
  }
}

TEST(Presets, UnknownNamesTheNearest) {
  try {
    preset_model("gpt2_124m");
    FAIL() << "accepted";
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), ops::ExitCode::kConfig);
    EXPECT_NE(std::string(error.what()).find("the nearest is \"gpt2-124m\""), std::string::npos);
  }
}

TEST(DeriveDimensions, FillsWhatIsLeftOpen) {
  ModelConfig model;
  model.width = 200;
  model.n_heads = 4;
  model.n_layers = 1;
  derive_dimensions(model, 77);
  EXPECT_EQ(model.n_kv_heads, 4);
  EXPECT_EQ(model.head_dim, 50);
  EXPECT_EQ(model.ffn_width, 576);  // 8 * 200 / 3 = 533.3, up to a multiple of 64
  EXPECT_EQ(model.max_seq_len, 77);

  model.ffn_width = 0;
  model.width = 192;
  derive_dimensions(model, 77);
  EXPECT_EQ(model.ffn_width, 512);  // exactly 8 / 3

  model.ffn_width = 0;
  model.activation = ops::Activation::kRelu2;
  derive_dimensions(model, 77);
  EXPECT_EQ(model.ffn_width, 768);
}

TEST(ModelProblems, NameWorkingValues) {
  ModelConfig model = preset_model("llama-1m");
  model.n_kv_heads = 3;
  model.head_dim = 31;
  model.max_seq_len = 64;
  const std::vector<std::string> problems = model_problems(model, 128);
  ASSERT_EQ(problems.size(), 3u);
  EXPECT_EQ(problems[0],
            "model.n_kv_heads = 3 does not divide model.n_heads = 4: write model.n_kv_heads = 2");
  EXPECT_NE(problems[1].find("write model.head_dim = 32"), std::string::npos);
  EXPECT_NE(problems[2].find("write train.seq_len = 64"), std::string::npos);
}

TEST(ModelProblems, OddHeadsAreFineWithoutRotation) {
  ModelConfig model = preset_model("gpt2-10m");
  model.head_dim = 31;
  EXPECT_TRUE(model_problems(model, 128).empty());
}

}  // namespace
}  // namespace qstep::trainer
