#include "trainer/config/recipe_check.h"

#include <gtest/gtest.h>

#include "ops/error.h"
#include "trainer/config/recipe_file.h"

namespace qstep::trainer {
namespace {

using Problems = std::vector<std::string>;

// Four blocks: width 96 = 3 x 32, qkv 96 x 288, up 96 x 2 ffn_width.
Config config_with(const std::string& recipe_toml, std::vector<std::string> overrides = {}) {
  std::vector<std::string> words{
      "model.n_layers=4", "model.width=96",      "model.n_heads=3",      "model.ffn_width=256",
      "train.seq_len=64", "train.micro_batch=2", "train.global_batch=2", "model.vocab_size=64"};
  words.insert(words.end(), overrides.begin(), overrides.end());
  Config config = load_config("", words).config;
  const RecipeReading reading = read_recipe_text(recipe_toml, "my.toml", "my");
  EXPECT_EQ(reading.problems, Problems{});
  config.precision.loaded = reading.recipe;
  return config;
}

Problems problems_of(const Config& config) { return recipe_problems(config, Purpose::kTraining); }

constexpr const char* kAllNvfp4 = R"([operands]
x_fprop = "nvfp4"
w_fprop = "nvfp4"
dy_dgrad = "nvfp4"
w_dgrad = "nvfp4"
dy_wgrad = "nvfp4"
x_wgrad = "nvfp4"
)";

TEST(RecipeCheck, FitsWhereEveryDimensionIsAMultiple) {
  EXPECT_EQ(problems_of(config_with(kAllNvfp4)), Problems{});
}

TEST(RecipeCheck, NamesLayersOperandsAndTheNearestSizes) {
  EXPECT_EQ(
      problems_of(config_with(kAllNvfp4, {"model.ffn_width=250"})),
      (Problems{
          "model.ffn_width = 250: dy_dgrad (nvfp4 1x16), w_dgrad (nvfp4 1x16) of blocks.0-3.up "
          "need output features in "
          "multiples of 16, found 500: write model.ffn_width = 248 or 256, or keep these layers in "
          "bf16 in the recipe: [keep] layers = [\"blocks.*.up\"]",
          "model.ffn_width = 250: x_fprop (nvfp4 1x16), w_fprop (nvfp4 1x16) of blocks.0-3.down "
          "need input features in multiples of 16, found 250: write model.ffn_width = 240 or 256, "
          "or keep these layers in bf16 in the recipe: [keep] layers = [\"blocks.*.down\"]"}));
}

TEST(RecipeCheck, TokensOfAMicroBatchAreTheSumOfWgrad) {
  EXPECT_EQ(
      problems_of(config_with(kAllNvfp4, {"train.seq_len=60"})),
      (Problems{"train.seq_len = 60: dy_wgrad (nvfp4 1x16), x_wgrad (nvfp4 1x16) of "
                "blocks.0-3.* need tokens of a micro-batch in multiples of 16, found 120: "
                "write train.seq_len = 56 or 64, or keep these layers in bf16 in the recipe: "
                "[keep] layers = [\"blocks.*.attn_out\", \"blocks.*.down\", \"blocks.*.qkv\", "
                "\"blocks.*.up\"]"}));
  EXPECT_EQ(
      problems_of(config_with(kAllNvfp4, {"train.seq_len=8", "train.micro_batch=1"})),
      (Problems{"train.seq_len = 8: dy_wgrad (nvfp4 1x16), x_wgrad (nvfp4 1x16) of "
                "blocks.0-3.* need tokens of a micro-batch in multiples of 16, found 8: "
                "write train.seq_len = 16, or keep these layers in bf16 in the recipe: "
                "[keep] layers = [\"blocks.*.attn_out\", \"blocks.*.down\", \"blocks.*.qkv\", "
                "\"blocks.*.up\"]"}));
}

TEST(RecipeCheck, SquareBlocksNeedTheirRowsTooAndFp8NeedsNothing) {
  const std::string square = "[operands]\nw_fprop = { format = \"nvfp4\", block = \"16x16\" }\n";
  EXPECT_EQ(problems_of(config_with(square, {"model.ffn_width=252"})).size(), 2u);
  const std::string line = "[operands]\nw_fprop = \"nvfp4\"\n";
  EXPECT_EQ(problems_of(config_with(line, {"model.ffn_width=252"})).size(), 1u);
  const std::string fp8 =
      "[operands]\nw_fprop = { format = \"fp8-e4m3\", block = \"128x128\" }\nx_wgrad = { format = "
      "\"fp8-e4m3\", block = \"1x128\" }\n";
  EXPECT_EQ(problems_of(config_with(fp8, {"model.ffn_width=250", "train.seq_len=61"})), Problems{});
}

TEST(RecipeCheck, KeptLayersNeedNothingAndSwitchesCount) {
  const std::string keep = kAllNvfp4 + std::string("[keep]\nlayers = [\"*.up\", \"*.down\"]\n");
  EXPECT_EQ(problems_of(config_with(keep, {"model.ffn_width=250"})), Problems{});
  const std::string late =
      "[[switch]]\nat = 0.5\nw_fprop = \"nvfp4\"\n[[override]]\nlayers = \"blocks.1.*\"\nw_fprop = "
      "\"bf16\"\n";
  const Problems problems = problems_of(config_with(late, {"model.ffn_width=250"}));
  ASSERT_EQ(problems.size(), 1u);  // the switch reaches every layer, overridden ones too
  EXPECT_NE(problems[0].find("blocks.0-3.down"), std::string::npos) << problems[0];
}

TEST(RecipeCheck, PatternsMatchSomething) {
  const std::string text = kAllNvfp4 + std::string("[keep]\nlayers = [\"blocks.*.atn_out\"]\n");
  const Problems problems = problems_of(config_with(text));
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0],
            "the recipe's keep.layers \"blocks.*.atn_out\" matches no linear layer of this model: "
            "did you mean \"blocks.*.attn_out\"? (head and embeddings are never quantized)");
}

// Each override is right with the base, and so is neither problem seen in the file.
TEST(RecipeCheck, OverridesThatMeetInOneLayerAreChecked) {
  const std::string text = R"([operands]
dy_wgrad = { format = "nvfp4", hadamard = 16 }
x_wgrad = { format = "nvfp4", hadamard = 16 }
[[override]]
layers = "blocks.*.up"
dy_wgrad = { format = "nvfp4", hadamard = 32 }
x_wgrad = { format = "nvfp4", hadamard = 32 }
[[override]]
layers = "blocks.1.*"
dy_wgrad = { format = "mxfp4", hadamard = 16 }
x_wgrad = { format = "mxfp4", hadamard = 16 }
)";
  EXPECT_EQ(problems_of(config_with(text)), Problems{});
  Config config = config_with(text);
  config.precision.loaded.overrides[1].given.back() = false;  // x_wgrad stays what the first gave
  const Problems problems = problems_of(config);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_TRUE(problems[0].starts_with("from step 1 on, blocks.1.up dy_wgrad: its Hadamard"))
      << problems[0];
}

TEST(RecipeCheck, AModelThatDoesNotFitIsRefusedAtStartUp) {
  Config config = config_with(kAllNvfp4, {"model.ffn_width=250", "train.seq_len=60"});
  try {
    finish_model(config, 64);
    ADD_FAILURE();
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), ops::ExitCode::kConfig);
    const std::string text = error.what();
    EXPECT_NE(text.find("model.ffn_width = 250"), std::string::npos) << text;
    EXPECT_NE(text.find("train.seq_len = 60"), std::string::npos) << text;
  }
}

TEST(RecipeCheck, NamesInShort) {
  EXPECT_EQ(module_names({0, 1, 2, 3, 4, 5, 6, 7}), "blocks.0-1.*");
  EXPECT_EQ(module_names({0, 4, 8, 13}), "blocks.0-2.qkv, blocks.3.attn_out");
  EXPECT_EQ(module_names({2, 3, 6, 7}), "blocks.0-1.{up,down}");
}

// Each override alone leaves half a Hadamard transform; the layers get both.
TEST(RecipeCheck, OverridesAndSwitchesAddUp) {
  const std::string base = R"([operands]
dy_wgrad = "nvfp4"
x_wgrad = "nvfp4"
)";
  const std::string rotated = base + R"([[override]]
layers = "blocks.*.down"
dy_wgrad = { format = "nvfp4", hadamard = 16 }
[[override]]
layers = "blocks.*.down"
x_wgrad = { format = "nvfp4", hadamard = 16 }
)";
  EXPECT_EQ(problems_of(config_with(rotated)), Problems{});
  EXPECT_EQ(problems_of(config_with(base + R"([[switch]]
step = 3
dy_wgrad = { format = "nvfp4", hadamard = 16 }
[[switch]]
step = 3
x_wgrad = { format = "nvfp4", hadamard = 16 }
)")),
            Problems{});
}

// One line for all layers in which the same operands meet.
TEST(RecipeCheck, ConflictsNameStepLayersAndOperand) {
  const std::string base = R"([operands]
dy_wgrad = { format = "nvfp4", hadamard = 16 }
x_wgrad = { format = "nvfp4", hadamard = 16 }
)";
  EXPECT_EQ(problems_of(config_with(base)), Problems{});
  const Problems of_override = problems_of(
      config_with(base + "[[override]]\nlayers = \"blocks.*.up\"\nx_wgrad = \"bf16\"\n"));
  ASSERT_EQ(of_override.size(), 1u);
  EXPECT_TRUE(
      of_override[0].starts_with("from step 1 on, blocks.0-3.up dy_wgrad: its Hadamard transform"))
      << of_override[0];
  // Each is right with the base; together they are not.
  const Problems together = problems_of(config_with(base + R"([[override]]
layers = "*"
x_wgrad = "nvfp4"
dy_wgrad = "nvfp4"
[[switch]]
step = 7
x_wgrad = { format = "mxfp4", hadamard = 16 }
)"));
  ASSERT_EQ(together.size(), 1u);
  EXPECT_TRUE(together[0].starts_with("from step 7 on, blocks.0-3.* dy_wgrad: its Hadamard"))
      << together[0];
}

TEST(RecipeCheck, EvaluationNeedsWhatForwardPassesRead) {
  const Config short_sequences = config_with(kAllNvfp4, {"train.seq_len=8", "train.micro_batch=1"});
  EXPECT_EQ(problems_of(short_sequences).size(), 1u);
  EXPECT_EQ(recipe_problems(short_sequences, Purpose::kEvaluation), Problems{});
  const Problems problems =
      recipe_problems(config_with(kAllNvfp4, {"model.ffn_width=250"}), Purpose::kEvaluation);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_TRUE(problems[0].starts_with(
      "model.ffn_width = 250: x_fprop (nvfp4 1x16), w_fprop (nvfp4 1x16) of blocks.0-3.down"))
      << problems[0];
}

}  // namespace
}  // namespace qstep::trainer
