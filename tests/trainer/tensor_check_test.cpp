#include "trainer/config/tensor_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "ops/error.h"
#include "trainer/config/layer_precision.h"
#include "trainer/config/recipe_file.h"
#include "trainer/model/weights.h"

namespace qstep::trainer {
namespace {

using precision::OperandSlot;
using precision::QuantSpec;
using Problems = std::vector<std::string>;
using Values = std::vector<int64_t>;

constexpr const char* kPlain = "[operands]\n";

// 8 query heads and 4 key/value heads of 32; 512 rows of embedding; 128 tokens a micro-batch.
std::vector<std::string> words_with(const std::vector<std::string>& overrides) {
  std::vector<std::string> words{"model.n_layers=2",     "model.width=256",
                                 "model.n_heads=8",      "model.n_kv_heads=4",
                                 "train.seq_len=64",     "model.ffn_width=384",
                                 "model.vocab_size=500", "model.max_seq_len=1024",
                                 "train.micro_batch=2",  "train.global_batch=8"};
  words.insert(words.end(), overrides.begin(), overrides.end());
  return words;
}

// parallel.tensor is set behind the checks of load_config.
Config config_with(int64_t tensor, const std::vector<std::string>& overrides = {},
                   const std::string& recipe_toml = kPlain) {
  Config config = load_config("", words_with(overrides)).config;
  const RecipeReading reading = read_recipe_text(recipe_toml, "my.toml", "my");
  EXPECT_EQ(Problems{}, reading.problems);
  config.precision.loaded = reading.recipe;
  config.parallel.tensor = tensor;
  return config;
}

std::string all_slots(const std::string& spec) {
  std::string text = "[operands]\n";
  for (const std::string_view slot : precision::kOperandSlotNames) {
    text += std::string(slot) + " = " + spec + "\n";
  }
  return text;
}

TEST(TensorCheck, EveryDimensionIsShared) {
  EXPECT_EQ((Values{1, 2, 4}), possible_tensors(config_with(1)));
  EXPECT_EQ((Values{1, 2}), possible_tensors(config_with(1, {"model.n_kv_heads=2"})));
  EXPECT_EQ((Values{1, 2}), possible_tensors(config_with(1, {"model.ffn_width=390"})));
  EXPECT_EQ((Values{1, 2}),
            possible_tensors(config_with(1, {"train.seq_len=3", "train.micro_batch=2"})));
  const std::vector<std::string> threes{"model.n_heads=6", "model.n_kv_heads=6",
                                        "model.head_dim=32", "train.seq_len=48"};
  EXPECT_EQ((Values{1, 2}), possible_tensors(config_with(1, threes)));  // 512 rows
  std::vector<std::string> unknown = threes;
  unknown.push_back("model.vocab_size=0");
  EXPECT_EQ((Values{1, 2, 3, 6}), possible_tensors(config_with(1, unknown)));
  for (const int64_t t : {1, 2, 4}) EXPECT_EQ(Problems{}, tensor_problems(config_with(t)));
}

TEST(TensorCheck, EveryReasonIsTold) {
  EXPECT_EQ(
      (Problems{
          "parallel.tensor = 3 does not divide model.n_heads = 8: write parallel.tensor = 2",
          "parallel.tensor = 3 does not divide model.n_kv_heads = 4, and ranks share no key/value "
          "head: write parallel.tensor = 2",
          "parallel.tensor = 3 does not divide model.ffn_width = 382: write parallel.tensor = 2, "
          "or model.ffn_width = 381 or 384",
          "parallel.tensor = 3 does not divide the 512 rows of the embedding (model.vocab_size = "
          "500, rounded up to a multiple of 128): write parallel.tensor = 2, or model.vocab_size "
          "= 768",
          "parallel.tensor = 3 does not divide the 128 tokens of a micro-batch (train.micro_batch "
          "= 2, train.seq_len = 64): write parallel.tensor = 2, or train.seq_len = 63 or 66"}),
      tensor_problems(config_with(3, {"model.ffn_width=382"})));
  EXPECT_EQ((Problems{"parallel.tensor = 8 does not divide model.n_kv_heads = 4, and ranks share "
                      "no key/value head: write parallel.tensor = 4, or model.n_kv_heads = 8"}),
            tensor_problems(config_with(8)));
  // As many keys as queries are one reason.
  EXPECT_EQ((Problems{"parallel.tensor = 5 does not divide model.n_heads = 8: write "
                      "parallel.tensor = 4 or 8"}),
            tensor_problems(config_with(5, {"model.n_kv_heads=8", "model.ffn_width=640",
                                            "model.vocab_size=640", "train.seq_len=320"})));
}

// A share that would cut a block: 32 key features on each of 4 ranks, 384 / 4 = 96 of the MLP.
TEST(TensorCheck, BlocksStayWhole) {
  EXPECT_EQ((Values{1, 2, 4}), possible_tensors(config_with(1, {}, all_slots("\"nvfp4\""))));
  EXPECT_EQ(
      (Problems{
          "parallel.tensor = 4: dy_dgrad (mxfp8-e4m3 1x32), w_dgrad (mxfp8-e4m3 1x32) of "
          "blocks.0-1.qkv need a rank's key features (model.n_kv_heads = 4, model.head_dim = 16) "
          "in multiples of 32, found 16: write parallel.tensor = 2, or keep these layers in bf16 "
          "in the recipe: [keep] layers = [\"blocks.*.qkv\"]",
          "parallel.tensor = 4: dy_dgrad (mxfp8-e4m3 1x32), w_dgrad (mxfp8-e4m3 1x32), x_fprop "
          "(mxfp8-e4m3 1x32), w_fprop (mxfp8-e4m3 1x32) of blocks.0-1.{up,down} need a rank's MLP "
          "features (model.ffn_width = 320) in multiples of 32, found 80: write parallel.tensor = "
          "2, or model.ffn_width = 256 or 384, or keep these layers in bf16 in the recipe: [keep] "
          "layers = [\"blocks.*.down\", \"blocks.*.up\"]"}),
      tensor_problems(config_with(4, {"model.head_dim=16", "model.ffn_width=320"},
                                  all_slots("\"mxfp8-e4m3\""))));
}

// What a rank has all of may have any blocks: x of qkv and up, dy of attn_out and down.
TEST(TensorCheck, WhatIsNotCutNeedsNothing) {
  const std::string gathered = R"([[override]]
layers = "blocks.*.qkv"
x_fprop = { format = "fp8-e4m3", block = "1x128" }
[[override]]
layers = "blocks.*.up"
x_wgrad = { format = "fp8-e4m3", block = "1x128" }
[[override]]
layers = "blocks.*.down"
dy_dgrad = { format = "fp8-e4m3", block = "1x128" }
[[override]]
layers = "blocks.*.attn_out"
dy_wgrad = { format = "fp8-e4m3", block = "1x128" }
)";
  EXPECT_EQ((Values{1, 2, 4}), possible_tensors(config_with(1, {}, gathered)));
  const std::string cut =
      "[[override]]\nlayers = \"blocks.1.down\"\n"
      "x_fprop = { format = \"fp8-e4m3\", block = \"1x128\" }\n";
  EXPECT_EQ((Values{1}), possible_tensors(config_with(1, {}, cut)));  // 192
  // The sum of wgrad runs over tokens, which all ranks have.
  const std::string tokens =
      "[[override]]\nlayers = \"blocks.1.down\"\n"
      "x_wgrad = { format = \"fp8-e4m3\", block = \"1x128\" }\n";
  EXPECT_EQ((Values{1, 2, 4}), possible_tensors(config_with(1, {}, tokens)));
  const std::string square =
      "[[override]]\nlayers = \"blocks.1.up\"\n"
      "w_fprop = { format = \"fp8-e4m3\", block = \"128x128\" }\n";
  EXPECT_EQ((Values{1}), possible_tensors(config_with(1, {}, square)));
}

TEST(TensorCheck, LaterStepsCountAndKeptLayersDoNot) {
  const std::string hadamard = "{ format = \"nvfp4\", hadamard = 128 }";
  const std::string late =
      "[[switch]]\nat = 0.5\ndy_dgrad = " + hadamard + "\nw_dgrad = " + hadamard + "\n";
  EXPECT_EQ((Values{1}), possible_tensors(config_with(1, {}, late)));  // up: 192
  EXPECT_EQ((Values{1, 2}),
            possible_tensors(config_with(1, {"model.ffn_width=512", "model.head_dim=64"}, late)));
  EXPECT_EQ((Values{1, 2, 4}),
            possible_tensors(config_with(1, {"model.ffn_width=512", "model.head_dim=128"}, late)));
  const std::string kept = late + "[keep]\nlayers = [\"*.up\", \"*.qkv\"]\n";
  EXPECT_EQ((Values{1, 2, 4}), possible_tensors(config_with(1, {}, kept)));
}

// ---- against the list of weights ----------------------------------------------------------

// What `spec` needs along the summed dimension, or across it, by its fields.
int64_t needed(const QuantSpec& spec, bool along_k) {
  if (!spec.quantized()) return 1;
  int64_t unit = std::max(16, along_k ? spec.block.k : spec.block.rows);
  if (along_k) unit = std::lcm(unit, std::max(1, spec.hadamard));
  if (along_k && spec.amax == precision::AmaxScope::kGroup128) unit = std::lcm(unit, int64_t{128});
  return unit;
}

// What the operands of a layer need of a section's share, where the weight is cut along its rows
// (O) or its columns (I).
int64_t needed(const precision::OperandTable& table, TensorSplit split) {
  int64_t unit = 1;
  const auto need = [&](OperandSlot slot, bool along_k) {
    unit = std::lcm(unit, needed(table[slot], along_k));
  };
  const bool by_rows = split == TensorSplit::kRows;
  need(OperandSlot::kWFprop, !by_rows);
  need(OperandSlot::kWDgrad, by_rows);
  if (by_rows) {
    need(OperandSlot::kDyDgrad, true);
    need(OperandSlot::kDyWgrad, false);
  } else {
    need(OperandSlot::kXFprop, true);
    need(OperandSlot::kXWgrad, false);
  }
  return unit;
}

bool shares_come_out_even(const Config& config, int64_t t) {
  if (config.train.micro_batch * config.train.seq_len % t != 0) return false;
  std::map<std::string, int64_t> unit;  // by weight
  for (const PrecisionPhase& phase : plan_precision(config).phases) {
    for (int64_t module = 0; module < n_modules(config.model); ++module) {
      const bool by_rows = module % 2 == 0;  // qkv, attn_out, up, down
      int64_t& u = unit.try_emplace(module_name(module) + ".weight", 1).first->second;
      u = std::lcm(u, needed(phase.tables[static_cast<size_t>(module)],
                             by_rows ? TensorSplit::kRows : TensorSplit::kCols));
    }
  }
  for (const WeightSpec& w : weight_list(config.model)) {
    for (const int64_t section : w.sections) {
      if (section % t != 0) return false;
      const int64_t share = section / t;
      const bool heads = w.name.ends_with("qkv.weight");
      if (heads && share % config.model.head_dim != 0) return false;
      const auto found = unit.find(w.name);
      if (found != unit.end() && share % found->second != 0) return false;
    }
  }
  return true;
}

TEST(TensorCheck, AgreesWithTheSectionsOfTheWeights) {
  const auto preset = [](const std::string& name) {
    return load_config("", std::vector<std::string>{"model.preset=" + name}).config;
  };
  std::vector<Config> configs{
      preset("gpt2-124m"),
      preset("llama-15m"),
      preset("qwen3-0.6b"),
      config_with(1),
      config_with(1, {"model.head_dim=24", "model.ffn_width=768"}),
      config_with(1, {"model.n_kv_heads=8", "model.head_dim=64", "train.seq_len=60"})};
  size_t n_refused = 0;
  for (Config& config : configs) {
    if (config.model.vocab_size == 0) config.model.vocab_size = kAssumedVocab;
    for (const char* recipe : {"bf16", "fp8-delayed", "fp8-block", "mxfp8", "nvfp4"}) {
      set_recipe(config, recipe);
      config.parallel.tensor = 1;
      const Values possible = possible_tensors(config);
      for (int64_t t = 2; t <= 17; ++t) {
        config.parallel.tensor = t;
        const bool fits = shares_come_out_even(config, t);
        n_refused += fits ? 0 : 1;
        EXPECT_EQ(fits, tensor_problems(config).empty()) << config.model.preset << recipe << t;
        EXPECT_EQ(fits, std::binary_search(possible.begin(), possible.end(), t))
            << config.model.preset << recipe << t;
      }
    }
  }
  EXPECT_LT(0u, n_refused);
  EXPECT_LT(n_refused, configs.size() * 5 * 16);
}

// ---- advice -------------------------------------------------------------------------------

// "model.ffn_width=256" and "model.ffn_width=384" of "..., or model.ffn_width = 256 or 384, or ..."
std::vector<std::string> advised(const std::string& text) {
  std::vector<std::string> words;
  std::string option;
  std::string rest = text.substr(text.find(": write ") + 8);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(" or "), rest.size());
    std::string part = rest.substr(0, end);
    rest = end == rest.size() ? "" : rest.substr(end + 4);
    if (part.starts_with("keep these layers")) break;
    if (part.ends_with(',')) part.pop_back();
    if (const size_t equals = part.find(" = "); equals != std::string::npos) {
      option = part.substr(0, equals);
      part = part.substr(equals + 3);
    }
    words.push_back(option + "=" + part);
  }
  return words;
}

// Each value of parallel.tensor makes everything right, each other value its own reason.
TEST(TensorCheck, AdviceHelps) {
  const std::vector<std::vector<std::string>> models{
      {"model.ffn_width=320", "train.seq_len=72"},
      {"model.head_dim=16", "model.ffn_width=80", "train.seq_len=128"},
      {"model.n_heads=12", "model.n_kv_heads=6", "model.head_dim=64", "train.micro_batch=1"}};
  size_t n_advised = 0;
  for (const std::vector<std::string>& words : models) {
    for (const char* format : {"\"bf16\"", "\"nvfp4\"", "\"mxfp8-e4m3\""}) {
      for (int64_t t = 2; t <= 9; ++t) {
        for (const std::string& text : tensor_problems(config_with(t, words, all_slots(format)))) {
          const std::string reason = text.substr(0, text.find(" = ", 18));
          for (const std::string& word : advised(text)) {
            ++n_advised;
            if (word.starts_with("parallel.tensor=")) {
              EXPECT_EQ(Problems{}, tensor_problems(config_with(std::stoll(word.substr(16)), words,
                                                                all_slots(format))))
                  << text;
              continue;
            }
            std::vector<std::string> changed = words;
            changed.push_back(word);
            for (const std::string& left :
                 tensor_problems(config_with(t, changed, all_slots(format)))) {
              EXPECT_FALSE(left.starts_with(reason)) << word << "\n" << text << "\n" << left;
            }
          }
        }
      }
    }
  }
  EXPECT_LT(50u, n_advised);
}

// ---- where it is asked ---------------------------------------------------------------------

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kConfig, error.code());
    return error.what();
  }
  return "";
}

TEST(TensorCheck, TheConfigurationIsRefusedWithItsPlace) {
  const std::string text = refusal([] {
    load_config("", words_with({"parallel.tensor=3", "model.ffn_width=383"}));
  });
  for (const char* part :
       {"command line: parallel.tensor = 3 does not divide model.n_heads = 8",
        "command line: parallel.tensor = 3 does not divide model.ffn_width = 383",
        "command line: parallel.tensor = 3 does not divide the 128 tokens of a micro-batch"}) {
    EXPECT_NE(std::string::npos, text.find(part)) << text;
  }
  EXPECT_EQ("", refusal([] { load_config("", words_with({"parallel.tensor=4"})); }));
}

TEST(TensorCheck, TheVocabularyOfTheCorpusIsAskedWhenItIsKnown) {
  Config config =
      load_config("", words_with({"parallel.tensor=3", "model.n_heads=6", "model.n_kv_heads=3",
                                  "model.head_dim=32", "train.seq_len=48", "model.vocab_size=0"}))
          .config;
  const std::string text = refusal([&] { finish_model(config, 500); });
  EXPECT_NE(std::string::npos,
            text.find("parallel.tensor = 3 does not divide the 512 rows of the embedding"))
      << text;
  config.model.vocab_size = 768;
  EXPECT_EQ("", refusal([&] { finish_model(config, 500); }));
}

}  // namespace
}  // namespace qstep::trainer
