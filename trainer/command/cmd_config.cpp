// qstep config print | list | presets
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "trainer/base/format.h"
#include "trainer/command/commands.h"
#include "trainer/config/config_options.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

template <class T>
Json json_value(const T& value) {
  if constexpr (HasChoices<T>) {
    return choice_name(value);
  } else {
    return value;
  }
}

void print_config(const std::vector<std::string>& words, bool as_json) {
  const LoadedConfig loaded = load_config_words(words);
  if (!as_json) {
    fmt::print("{}", to_toml(loaded));
    return;
  }
  Json json;
  for_each_option(loaded.config, [&](std::string_view name, const auto& field, std::string_view,
                                     const Limits&) {
    json[std::string(section_of(name))][std::string(key_of(name))] = {
        {"value", json_value(field)}, {"origin", loaded.origins.at(std::string(name))}};
  });
  fmt::print("{}\n", json.dump(2));
}

struct OptionRow {
  std::string name, type, default_value, help;
};

std::vector<OptionRow> option_rows() {
  std::vector<OptionRow> rows;
  const Config defaults;
  for_each_option(defaults, [&](std::string_view name, const auto& field, std::string_view help,
                                const Limits& limits) {
    std::string default_value = toml_value(field);
    if (section_of(name) == "model") {
      default_value = name == "model.preset" ? toml_string(kDefaultPreset) : "the preset's";
    }
    rows.push_back({std::string(name), type_name(field, limits), default_value, std::string(help)});
  });
  return rows;
}

void list_options(bool as_json) {
  const std::vector<OptionRow> rows = option_rows();
  if (as_json) {
    Json json = Json::array();
    for (const OptionRow& row : rows) {
      json.push_back({{"name", row.name},
                      {"type", row.type},
                      {"default", row.default_value},
                      {"help", row.help}});
    }
    fmt::print("{}\n", json.dump(2));
    return;
  }
  constexpr size_t kWideType =
      30;  // long lists of choices stand out instead of widening the column
  size_t name_width = 0, type_width = 0, default_width = 0;
  for (const OptionRow& row : rows) {
    name_width = std::max(name_width, row.name.size());
    if (row.type.size() < kWideType) type_width = std::max(type_width, row.type.size());
    default_width = std::max(default_width, row.default_value.size());
  }
  std::string_view section;
  for (const OptionRow& row : rows) {
    if (section_of(row.name) != section && !section.empty()) fmt::print("\n");
    section = section_of(row.name);
    fmt::print("{:<{}}  {:<{}}  {:<{}}  {}\n", row.name, name_width, row.type, type_width,
               row.default_value, default_width, row.help);
  }
}

void list_presets(bool as_json) {
  Json json = Json::array();
  if (!as_json) {
    fmt::print("{:<12} {:>12} {:>16}  {}\n", "preset", "parameters", "FLOP per token",
               "what it is");
  }
  for (const Preset& preset : presets()) {
    ModelConfig model = preset.model;
    if (model.vocab_size == 0) model.vocab_size = kAssumedVocab;
    const double flops = flops_per_token(model, model.max_seq_len, AttentionCount::kCausal);
    if (as_json) {
      json.push_back({{"name", preset.name},
                      {"what", preset.what},
                      {"n_parameters", n_parameters(model)},
                      {"vocab_size", model.vocab_size},
                      {"vocab_from_corpus", preset.model.vocab_size == 0},
                      {"seq_len", model.max_seq_len},
                      {"causal_flops_per_token", flops}});
    } else {
      fmt::print("{:<12} {:>12} {:>16}  {}\n", preset.name, count_text(n_parameters(model)),
                 si_text(flops, "FLOP"), preset.what);
    }
  }
  if (as_json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print(
        "\nFLOP per token: forward and backward at the model's longest sequence, causal "
        "attention.\n"
        "Where the vocabulary comes from the corpus, {} tokens are assumed.\n",
        kAssumedVocab);
  }
}

}  // namespace

void add_config_command(CLI::App& app, int&) {
  CLI::App* config =
      app.add_subcommand("config", "Show options, presets, and where values come from");
  config->require_subcommand(1);
  config->footer("Example:\n  qstep config print run.toml train.steps=200");

  struct Arguments {
    std::vector<std::string> words;
    bool json = false;
  };
  const auto arguments = std::make_shared<Arguments>();

  CLI::App* print =
      config->add_subcommand("print", "Every value of a configuration and its origin");
  print->add_option("words", arguments->words, "TOML file, then overrides section.key=value")
      ->type_name("[FILE] [KEY=VALUE ...]");
  print->add_flag("--json", arguments->json, "as JSON");
  print->footer("Example:\n  qstep config print run.toml model.preset=llama-60m optimizer.lr=5e-4");
  print->callback([arguments] { print_config(arguments->words, arguments->json); });

  CLI::App* list = config->add_subcommand("list", "Every option: type, default, meaning");
  list->add_flag("--json", arguments->json, "as JSON");
  list->footer("Example:\n  qstep config list");
  list->callback([arguments] { list_options(arguments->json); });

  CLI::App* preset = config->add_subcommand("presets", "Models by name");
  preset->add_flag("--json", arguments->json, "as JSON");
  preset->footer("Example:\n  qstep config presets");
  preset->callback([arguments] { list_presets(arguments->json); });
}

}  // namespace qstep::trainer
