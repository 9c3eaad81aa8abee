#include "trainer/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <limits>

#include "trainer/base/nearest.h"
#include "trainer/config/config_options.h"
#include "trainer/config/recipe_file.h"

namespace qstep::trainer {
namespace {

LoadedConfig parse(const std::string& toml, std::vector<std::string> overrides = {}) {
  return parse_config(toml, "run.toml", overrides);
}

// The problems of a configuration that must be refused, one text each.
std::vector<std::string> problems_of(const std::string& toml,
                                     std::vector<std::string> overrides = {}) {
  std::vector<std::string> problems;
  try {
    parse(toml, std::move(overrides));
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), ops::ExitCode::kConfig);
    const std::string text = error.what();
    for (size_t at = text.find("\n  "); at != std::string::npos;) {
      const size_t end = text.find("\n  ", at + 1);
      problems.push_back(text.substr(at + 3, end == std::string::npos ? end : end - at - 3));
      at = end;
    }
  }
  return problems;
}

using Problems = std::vector<std::string>;

TEST(Config, EmptyMeansDefaults) {
  const LoadedConfig loaded = parse("");
  EXPECT_EQ(loaded.config.model.preset, "llama-15m");
  EXPECT_EQ(loaded.config.train.steps, 1000);
  EXPECT_EQ(loaded.origins.at("train.steps"), "default");
  EXPECT_EQ(loaded.origins.at("model.width"), "preset llama-15m");
  EXPECT_EQ(loaded.origins.size(), [] {
    size_t n = 0;
    const Config config;
    for_each_option(config, [&](auto&&...) { ++n; });
    return n;
  }());
}

TEST(Config, FileThenCommandLine) {
  const LoadedConfig loaded = parse(
      "[model]\npreset = \"gpt2-124m\"\nn_layers = 2\n[train]\nsteps = 1_000_000\nseq_len = 64\n",
      {"train.seq_len=128", "train.seq_len=256", "run.dir=2024", "optimizer.schedule=wsd",
       "optimizer.lr=1", "data.train='a b.h5'", "model.bias=false"});
  EXPECT_EQ(loaded.config.model.width, 768);
  EXPECT_EQ(loaded.config.model.n_layers, 2);
  EXPECT_FALSE(loaded.config.model.bias);
  EXPECT_EQ(loaded.config.train.steps, 1'000'000);
  EXPECT_EQ(loaded.config.train.seq_len, 256);
  EXPECT_EQ(loaded.config.run.dir, "2024");
  EXPECT_EQ(loaded.config.data.train, "a b.h5");
  EXPECT_EQ(loaded.config.optimizer.schedule, Schedule::kWsd);
  EXPECT_EQ(loaded.config.optimizer.lr, 1.0);
  EXPECT_EQ(loaded.origins.at("model.preset"), "run.toml:2");
  EXPECT_EQ(loaded.origins.at("model.n_layers"), "run.toml:3");
  EXPECT_EQ(loaded.origins.at("model.n_heads"), "preset gpt2-124m");
  EXPECT_EQ(loaded.origins.at("train.steps"), "run.toml:5");
  EXPECT_EQ(loaded.origins.at("train.seq_len"), "command line");
}

TEST(Config, DimensionsByNameStartFromNoPreset) {
  const LoadedConfig loaded =
      parse("model = {n_layers = 2, width = 96, n_heads = 4}", {"train.seq_len=33"});
  const ModelConfig& model = loaded.config.model;
  EXPECT_EQ(model.preset, "");
  EXPECT_FALSE(model.tied_head);
  EXPECT_EQ(model.head_dim, 24);
  EXPECT_EQ(model.ffn_width, 256);
  EXPECT_EQ(model.max_seq_len, 33);
  EXPECT_EQ(loaded.origins.at("model.ffn_width"), "derived");
}

TEST(Config, RotaryPresetsGrowWithTheSequenceAndLearnedOnesDoNot) {
  EXPECT_EQ(parse("", {"train.seq_len=4096"}).config.model.max_seq_len, 4096);
  EXPECT_EQ(parse("", {"train.seq_len=64"}).config.model.max_seq_len, 2048);
  EXPECT_EQ(problems_of("", {"model.preset=gpt2-124m", "train.seq_len=4096"}).size(), 1u);
  EXPECT_EQ(problems_of("", {"model.max_seq_len=32", "train.seq_len=64"}).size(), 1u);
}

TEST(Config, EveryProblemAtOnceInOrder) {
  const Problems problems = problems_of(R"(steps = 3
[model]
widht = 3
[train]
steps = "many"
global_batch = 30
lr = 3
seq_len = 1e3
eval_every = -1
[optimiser]
lr = 3
[optimizer]
schedule = "cosin"
beta1 = 1.0
lr = true
warmup_steps = [1, 2]
)",
                                        {"precision.recipe=nvfp", "train.warmup=3", "foo"});
  const Problems expected = {
      "run.toml:1: steps stands outside of a section: did you mean train.steps?",
      "run.toml:3: there is no option model.widht: did you mean model.width?",
      "run.toml:5: train.steps = text \"many\" is not an integer: write train.steps = 1000",
      "run.toml:6: train.global_batch = 30 is not a multiple of train.micro_batch = 4: write "
      "train.global_batch = 28 or 32",
      "run.toml:7: there is no option train.lr: did you mean optimizer.lr?",
      "run.toml:8: train.seq_len = number 1000.0 is not an integer: write train.seq_len = 1000",
      "run.toml:9: train.eval_every = -1 must be at least 0: write train.eval_every = 0",
      "run.toml:10: there is no section [optimiser]: did you mean [optimizer]?",
      "run.toml:13: optimizer.schedule = \"cosin\" is not one of \"constant\" | \"linear\" | "
      "\"cosine\" | \"wsd\": write optimizer.schedule = \"cosine\"",
      "run.toml:14: optimizer.beta1 = 1.0 must be below 1: write optimizer.beta1 = 0.9",
      "run.toml:15: optimizer.lr = true is not a number: write optimizer.lr = 0.001",
      "run.toml:16: optimizer.warmup_steps = array is not an integer: write "
      "optimizer.warmup_steps = 0",
      "command line: there is no option train.warmup: did you mean optimizer.warmup_steps?",
      "command line: \"foo\" is not section.key=value: write for instance train.steps=1000",
      "command line: precision.recipe = \"nvfp\" is no recipe: write \"nvfp4\", or the path of a "
      "file of your own; there are " +
          fmt::format("{}", fmt::join(recipe_names(), ", ")),
  };
  EXPECT_EQ(problems, expected);
}

TEST(Config, Contradictions) {
  EXPECT_EQ(
      problems_of("", {"optimizer.warmup_steps=20", "train.steps=10"}),
      Problems{"command line: optimizer.warmup_steps = 20 is more than train.steps = 10: write "
               "optimizer.warmup_steps = 1"});
  EXPECT_EQ(problems_of("", {"optimizer.min_lr=1.0"}).size(), 1u);
  EXPECT_EQ(problems_of("", {"optimizer.schedule=wsd", "optimizer.warmup_steps=900"}).size(), 1u);
  EXPECT_EQ(problems_of("", {"model.head_dim=31"}).size(), 1u);
  EXPECT_EQ(problems_of("", {"model.n_kv_heads=4"}),
            Problems{"command line: model.n_kv_heads = 4 does not divide model.n_heads = 6: write "
                     "model.n_kv_heads = 3"});
  EXPECT_EQ(problems_of("", {"model.preset=none"}).size(), 1u);
  EXPECT_EQ(problems_of("[model]\nn_layers = 2\nwidth = 100\nn_heads = 3\n"),
            Problems{"run.toml:3: model.width = 100 is not a multiple of model.n_heads = 3: write "
                     "model.width = 99 or 102, or give model.head_dim"});
  EXPECT_EQ(problems_of("", {"timing.trace_first=3", "timing.level=phases"}),
            Problems{"command line: timing.trace_first = 3 asks for a trace, which needs every "
                     "operation, and timing.level = \"phases\" does not note them: write "
                     "timing.level = \"ops\""});
  EXPECT_EQ(problems_of("", {"timing.trace_first=30", "train.steps=20"}),
            Problems{"command line: timing.trace_first = 30 is beyond train.steps = 20: write "
                     "timing.trace_first = 16, or 0 for no trace"});
}

TEST(Config, SuggestionsAreAccepted) {
  EXPECT_NO_THROW(parse("", {"train.global_batch=28"}));
  EXPECT_NO_THROW(parse("", {"optimizer.warmup_steps=1", "train.steps=10"}));
  EXPECT_NO_THROW(parse("", {"optimizer.schedule=wsd", "optimizer.warmup_steps=800"}));
  EXPECT_NO_THROW(parse("[model]\nn_layers = 2\nwidth = 102\nn_heads = 3\n"));
}

TEST(Config, OtherShapesOfWrong) {
  EXPECT_EQ(problems_of("[train]\nsteps = \n").size(), 1u);  // not TOML
  EXPECT_EQ(problems_of("[train\n").size(), 1u);
  EXPECT_EQ(problems_of("model = \"gpt2-124m\"").size(), 1u);
  EXPECT_EQ(problems_of("[train.steps]\nx = 1").size(), 1u);
  EXPECT_EQ(problems_of("[train]\nseed = 1979-05-27\n").size(), 1u);
  EXPECT_EQ(problems_of("[run]\ndir = 7\n").size(), 1u);
  EXPECT_EQ(problems_of("[run]\ndir = \"\"\n").size(), 1u);
  EXPECT_EQ(problems_of("[optimizer]\nlr = nan\n").size(), 1u);
  EXPECT_EQ(problems_of("[optimizer]\nlr = inf\n").size(), 1u);
  EXPECT_EQ(problems_of("", {"=3"}).size(), 1u);
  EXPECT_EQ(problems_of("", {"train.steps="}).size(), 1u);
  EXPECT_EQ(problems_of("", {"train.steps=1\ntrain.seed=2"}).size(), 1u);
  EXPECT_THROW(load_config("no/such/file.toml", {}), ops::Error);
  EXPECT_THROW(load_config(".", {}), ops::Error);
}

TEST(ToToml, RoundTripsEveryBit) {
  Config config = parse("", {"model.preset=qwen3-0.6b"}).config;
  config.data.train = "a \"quoted\" \\ path\nwith lines\t\x7f and \xC3\xA4.h5";
  config.train.seed = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  config.optimizer.lr = 1.0 / 3.0;
  config.optimizer.eps = std::numeric_limits<double>::denorm_min();
  config.optimizer.clip_norm = 1e22;
  config.optimizer.weight_decay = 5;
  config.parallel.reduction = Reduction::kRank;
  const std::string text = to_toml(config);
  const LoadedConfig again = parse(text);
  EXPECT_EQ(to_toml(again.config), text);
  EXPECT_EQ(again.config.data.train, config.data.train);
  EXPECT_EQ(again.config.train.seed, config.train.seed);
  EXPECT_EQ(again.config.optimizer.lr, config.optimizer.lr);
  EXPECT_EQ(again.config.optimizer.eps, config.optimizer.eps);
  EXPECT_EQ(again.config.optimizer.clip_norm, config.optimizer.clip_norm);
  EXPECT_EQ(again.config.parallel.reduction, Reduction::kRank);
}

TEST(ToToml, WithoutPreset) {
  const Config config = parse("", {"model.n_layers=2", "model.width=96", "model.n_heads=4"}).config;
  EXPECT_EQ(to_toml(parse(to_toml(config)).config), to_toml(config));
}

TEST(ToToml, OriginsAreComments) {
  const LoadedConfig loaded = parse("[train]\nsteps = 7\n");
  EXPECT_NE(to_toml(loaded).find("# run.toml:2"), std::string::npos);
  EXPECT_EQ(to_toml(parse(to_toml(loaded)).config), to_toml(loaded.config));
}

TEST(ConfigHash, SeesEverythingButTheRun) {
  const Config base = parse("").config;
  EXPECT_EQ(config_hash(base).size(), 32u);
  EXPECT_EQ(config_hash(base), config_hash(parse("", {"run.dir=x", "run.threads=3"}).config));
  EXPECT_NE(config_hash(base), config_hash(parse("", {"train.seed=2"}).config));
  EXPECT_NE(config_hash(base),
            config_hash(parse("", {"optimizer.lr=1.0000000000000002e-3"}).config));
}

TEST(FinishModel, TakesTheVocabularyOfTheCorpus) {
  Config config = parse("").config;
  finish_model(config, 4096);
  EXPECT_EQ(config.model.vocab_size, 4096);

  Config gpt2 = parse("", {"model.preset=gpt2-124m"}).config;
  finish_model(gpt2, 4096);
  EXPECT_EQ(gpt2.model.vocab_size, 50257);

  Config small = parse("", {"model.vocab_size=100"}).config;
  EXPECT_THROW(finish_model(small, 4096), ops::Error);
}

TEST(Options, EveryChoiceHasItsOwnName) {
  const Config config;
  for_each_option(
      config, [](std::string_view name, const auto& field, std::string_view help, const Limits&) {
        EXPECT_FALSE(help.empty()) << name;
        if constexpr (std::is_enum_v<std::decay_t<decltype(field)>>) {
          for (const auto& [text, value] : choices_of(field)) EXPECT_EQ(choice_name(value), text);
        }
      });
}

TEST(Nearest, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("wdith", "width"), 1u);  // one swap
  EXPECT_EQ(edit_distance("same", "same"), 0u);
  EXPECT_EQ(nearest("trian", std::vector<std::string>{"eval", "train", "data"}), "train");
  EXPECT_EQ(nearest("x", std::vector<std::string>{}), "");
}

}  // namespace
}  // namespace qstep::trainer
