#include "trainer/config/recipe_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "ops/error.h"
#include "trainer/config/config.h"
#include "trainer/config/recipe_check.h"

namespace qstep::trainer {
namespace {

using precision::OperandSlot;
using precision::Recipe;
using Problems = std::vector<std::string>;

RecipeReading read(const std::string& text) { return read_recipe_text(text, "my.toml", "my"); }

TEST(RecipeFile, EveryShippedRecipeReadsBackAndIsDescribed) {
  ASSERT_FALSE(recipe_names().empty());
  for (const std::string_view name : recipe_names()) {
    SCOPED_TRACE(name);
    const RecipeReading shipped = read_recipe(std::string(name));
    ASSERT_EQ(shipped.problems, Problems{});
    EXPECT_EQ(shipped.recipe.name, name);
    EXPECT_FALSE(shipped.recipe.title.empty());
    EXPECT_FALSE(shipped.recipe.paper.empty());
    EXPECT_FALSE(shipped.recipe.good_for.empty());
    EXPECT_FALSE(shipped.recipe.measured.empty());
    const RecipeReading back = read_recipe_text(to_toml(shipped.recipe), "back", std::string(name));
    ASSERT_EQ(back.problems, Problems{});
    EXPECT_TRUE(back.recipe == shipped.recipe) << to_toml(shipped.recipe);
  }
}

TEST(RecipeFile, EveryShippedRecipeRunsOnModelsOfItsUnits) {
  for (const char* model : {"llama-15m", "gpt2-124m", "llama-8b"}) {
    for (const std::string_view name : recipe_names()) {
      SCOPED_TRACE(std::string(name) + " " + model);
      Config config =
          load_config("", std::vector<std::string>{"model.preset=" + std::string(model),
                                                   "precision.recipe=" + std::string(name)})
              .config;
      EXPECT_EQ(recipe_problems(config, Purpose::kTraining), Problems{});
    }
  }
}

// numerics 7.6 and 7.8, field by field: the files could agree with each other and be wrong.
TEST(RecipeFile, Nvfp4IsTheSpecified) {
  using namespace precision;
  const Recipe r = load_recipe("nvfp4");
  QuantSpec row{.format = QuantFormat::kNvfp4, .block = {1, 16}, .scale = ScaleRule::kE4m3};
  QuantSpec tile = row;
  tile.block = {16, 16};
  QuantSpec gradient = row;
  gradient.rounding = Rounding::kStochastic;
  QuantSpec rotated = row;
  rotated.hadamard = 16;
  QuantSpec rotated_gradient = gradient;
  rotated_gradient.hadamard = 16;
  EXPECT_EQ(r.operands.specs, (std::array{row, tile, gradient, tile, rotated_gradient, rotated}));
  EXPECT_EQ(r.compute, ComputeType::kBf16);
  EXPECT_EQ(r.keep_first.of(8), 0);
  EXPECT_EQ(r.keep_last.of(8), 1);
  EXPECT_EQ(r.keep_last.of(62), 9);
}

TEST(RecipeFile, Quartet2IsTheSpecified) {
  using namespace precision;
  const Recipe r = load_recipe("quartet2");
  QuantSpec forward{.format = QuantFormat::kNvfp4, .block = {1, 16}, .scale = ScaleRule::kE4m3};
  forward.four_over_six = FourOverSix::kMse;
  forward.e4m3_max = 256;
  QuantSpec gradient{.format = QuantFormat::kNvfp4, .block = {1, 16}, .scale = ScaleRule::kE4m3};
  gradient.rounding = Rounding::kMsEden;
  gradient.hadamard = 128;
  gradient.signs = Signs::kPerStep;
  QuantSpec again = gradient;
  again.source = Source::kForward;
  EXPECT_EQ(r.operands.specs, (std::array{forward, forward, gradient, again, gradient, again}));
}

TEST(RecipeFile, WrittenByHand) {
  const RecipeReading reading = read(R"(
title = "mine"
[operands]
x_fprop = "mxfp8-e4m3"
w_fprop = { format = "mxfp8-e4m3", block = "32x32", scale = "pow2-floor" }
[operands.dy_dgrad]
format = "mxfp4"
rounding = "stochastic"
[keep]
first_blocks = 1
last_blocks = 0.5
layers = ["blocks.*.attn_out", "blocks.2.qkv"]
[[override]]
layers = "blocks.*.down"
x_fprop = "bf16"
[[switch]]
step = 100
w_fprop = "bf16"
[[switch]]
at = 0.9
x_fprop = "fp8-e4m3"
)");
  ASSERT_EQ(reading.problems, Problems{});
  const Recipe& r = reading.recipe;
  using namespace precision;
  EXPECT_EQ(r.operands[OperandSlot::kWFprop].block, (BlockShape{32, 32}));
  EXPECT_EQ(r.operands[OperandSlot::kWFprop].scale, ScaleRule::kPow2Floor);
  EXPECT_EQ(r.operands[OperandSlot::kDyDgrad].rounding, Rounding::kStochastic);
  EXPECT_FALSE(r.operands[OperandSlot::kXWgrad].quantized());
  EXPECT_EQ(r.keep_first.n, 1);
  EXPECT_EQ(r.keep_last.fraction, 0.5);
  EXPECT_EQ(r.keep.size(), 2u);
  ASSERT_EQ(r.overrides.size(), 1u);
  EXPECT_TRUE(r.overrides[0].given[0]);
  EXPECT_FALSE(r.overrides[0].given[1]);
  ASSERT_EQ(r.switches.size(), 2u);
  EXPECT_EQ(r.switches[0].from_step, 100);
  EXPECT_EQ(r.switches[1].from_fraction, 0.9);
  const RecipeReading back = read_recipe_text(to_toml(r), "back", "my");
  ASSERT_EQ(back.problems, Problems{});
  EXPECT_TRUE(back.recipe == r) << to_toml(r);
}

TEST(RecipeFile, EveryProblemAtOnceWithItsLine) {
  const Problems expected = {
      "my.toml:1: title = integer 3 is not text: write title = \"text\"",
      "my.toml:2: there is no key papr: did you mean paper?",
      "my.toml:3: compute = \"fp16\" is not one of \"fp32\" | \"bf16\": write compute = \"fp32\"",
      "my.toml:4: there is no key x_fprop: did you mean operands.x_fprop?",
      "my.toml:6: operands.w_fprop = \"nvfp\" is not one of \"bf16\" | \"nvfp4\" | \"mxfp4\" | "
      "\"mxfp8-e4m3\" | \"mxfp8-e5m2\" | \"fp8-e4m3\" | \"fp8-e5m2\": write w_fprop = \"nvfp4\"",
      "my.toml:7: there is no key dy_dgrad.roundin: did you mean dy_dgrad.rounding?",
      "my.toml:8: w_dgrad.hadamard = text \"16\" is not an integer: write hadamard = 16",
      "my.toml:9: dy_wgrad has no format: write dy_wgrad = { format = \"nvfp4\", ... }",
      "my.toml:10: operands.x_wgrad = array is not text: write x_wgrad = \"bf16\"",
      "my.toml:11: there is no key operands.x_fprob: did you mean operands.x_fprop?",
      "my.toml:13: keep.last_blocks = 1.5 must be below 1: write last_blocks = 0.15",
      "my.toml:14: keep.layers is not a list of texts: write layers = [\"blocks.*.attn_out\"]",
      "my.toml:15: there is no key keep.history: did you mean delayed.history?",
      "my.toml:16: [[override]] names no layers: write layers = \"blocks.*.down\"",
      "my.toml:16: [[override]] gives no operand: write for instance x_fprop = \"bf16\"",
      "my.toml:18: [[switch]] has both at and step: write at = 0.82 (a fraction of the run) or "
      "step "
      "= 1000",
  };
  const Problems found = read(R"(title = 3
papr = "x"
compute = "fp16"
x_fprop = "bf16"
[operands]
w_fprop = "nvfp"
dy_dgrad = { format = "nvfp4", roundin = "nearest" }
w_dgrad = { format = "nvfp4", hadamard = "16" }
dy_wgrad = { block = "1x16" }
x_wgrad = ["nvfp4"]
x_fprob = "bf16"
[keep]
last_blocks = 1.5
layers = "blocks.*"
history = 3
[[override]]

[[switch]]
at = 0.5
step = 3
x_fprop = "bf16"
)")
                             .problems;
  EXPECT_EQ(found, expected);
}

TEST(RecipeFile, ImpossibleCombinationsStandOnTheLineOfTheirOperand) {
  EXPECT_EQ(
      read(R"([operands]
x_fprop = { format = "mxfp8-e4m3", rounding = "stochastic" }
w_fprop = "mxfp8-e4m3"
dy_dgrad = { format = "nvfp4", source = "forward" }
dy_wgrad = { format = "nvfp4", hadamard = 16 }
x_wgrad = { format = "nvfp4", hadamard = 32 }
)")
          .problems,
      (Problems{
          "my.toml:2: x_fprop: mxfp8-e4m3 is not rounded stochastically: only nvfp4 and mxfp4 "
          "are",
          "my.toml:4: dy_dgrad: source = \"forward\" is for w_dgrad and x_wgrad, the backward "
          "copies of what the forward pass read",
          "my.toml:5: dy_wgrad: its Hadamard transform (nvfp4 1x16 hadamard-16) and that of "
          "x_wgrad (nvfp4 1x16 hadamard-32) do not cancel in wgrad: give both the same "
          "hadamard and signs, or neither",
      }));
}

// What no other operand could mend is told here; what operands are together, with the model
// (recipe_check_test.cpp).
TEST(RecipeFile, OperandsOfOverridesAndSwitchesAreCheckedEachForItself) {
  EXPECT_EQ(read(R"([operands]
dy_wgrad = "nvfp4"
[[override]]
layers = "*"
x_fprop = { format = "mxfp8-e4m3", rounding = "stochastic" }
dy_wgrad = { format = "nvfp4", hadamard = 16 }
[[switch]]
at = 0.5
dy_dgrad = { format = "nvfp4", source = "forward" }
x_wgrad = { format = "nvfp4", hadamard = 16 }
)")
                .problems,
            (Problems{"my.toml:5: x_fprop: mxfp8-e4m3 is not rounded stochastically: only nvfp4 "
                      "and mxfp4 are",
                      "my.toml:9: dy_dgrad: source = \"forward\" is for w_dgrad and x_wgrad, the "
                      "backward copies of what the forward pass read"}));
}

TEST(RecipeFile, SectionsAreSections) {
  EXPECT_EQ(
      read("delayed = 5\nswitch = 3\n").problems,
      (Problems{"my.toml:1: delayed is a section, found integer 5: write [delayed] and a line "
                "history = 1024",
                "my.toml:2: switch is a list of sections, each under [[switch]]: write [[switch]] "
                "and lines at = 0.82, x_fprop = \"bf16\""}));
  EXPECT_EQ(read("[delayed]\nhistory = 0\n").problems,
            (Problems{"my.toml:1: [delayed] without an operand that uses it: write amax = "
                      "\"delayed\" in one, or leave the section out",
                      "my.toml:2: delayed.history = 0 must be at least 1: write history = 1"}));
}

TEST(RecipeFile, NotToml) {
  const Problems problems = read("a = 1\nb = = 2\n").problems;
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_TRUE(problems[0].starts_with("my.toml:2: not TOML: ")) << problems[0];
}

TEST(RecipeFile, UnknownNamesAndMissingFiles) {
  for (const char* name : {"nvfp5", "no/such.toml", "gone.toml", "."}) {
    try {
      load_recipe(name);
      ADD_FAILURE() << name;
    } catch (const ops::Error& error) {
      EXPECT_EQ(error.code(), ops::ExitCode::kConfig);
    }
  }
  EXPECT_TRUE(read_recipe("nvfp5").problems.front().starts_with(
      "\"nvfp5\" is no recipe: write \"nvfp4\", or the path of a file of your own; there are "
      "bf16, "));
}

TEST(RecipeFile, ProblemsJoinThoseOfTheConfiguration) {
  try {
    parse_config("[train]\nsteps = 0\n[precision]\nrecipe = \"none\"\n", "run.toml", {});
    ADD_FAILURE();
  } catch (const ops::Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("run.toml:2: train.steps"), std::string::npos) << text;
    EXPECT_NE(text.find("run.toml:4: precision.recipe = \"none\" is no recipe"), std::string::npos)
        << text;
  }
}

// A recipe file's mistakes and the dimensions that do not fit what could be read of it.
TEST(RecipeFile, ProblemsJoinThoseOfTheModel) {
  const std::string path = ::testing::TempDir() + "joined.toml";
  std::ofstream(path) << "[operands]\nx_fprop = \"nvfp4\"\nw_fprop = \"nvfp5\"\n";
  const std::vector<std::string> words{"precision.recipe=" + path, "model.preset=llama-15m",
                                       "model.ffn_width=250"};
  try {
    load_config("", words);
    ADD_FAILURE();
  } catch (const ops::Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("joined.toml:3: operands.w_fprop = \"nvfp5\""), std::string::npos) << text;
    EXPECT_NE(text.find("model.ffn_width = 250: x_fprop (nvfp4 1x16) of blocks."),
              std::string::npos)
        << text;
  }
  std::remove(path.c_str());
}

TEST(RecipeFile, TheHashFollowsTheNumbersAndNotTheProse) {
  Config a = load_config("", std::vector<std::string>{"precision.recipe=nvfp4"}).config;
  Config b = a;
  b.precision.loaded.measured = "something else";
  EXPECT_EQ(config_hash(a), config_hash(b));
  b.precision.loaded.keep_last = {.n = 2};
  EXPECT_NE(config_hash(a), config_hash(b));
}

TEST(RecipeFile, StoredTextStandsForTheFile) {
  const Config config = parse_config("[precision]\nrecipe = \"gone/away.toml\"\n", "state", {},
                                     "compute = \"fp32\"\n")
                            .config;
  EXPECT_EQ(config.compute_dtype(), ops::Dtype::kF32);
  EXPECT_EQ(config.precision.loaded.name, "away");
}

}  // namespace
}  // namespace qstep::trainer
