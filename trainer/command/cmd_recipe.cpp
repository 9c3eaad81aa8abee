// qstep recipe list | show | check
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "trainer/backend/backend.h"
#include "trainer/backend/emulation.h"
#include "trainer/command/commands.h"
#include "trainer/config/layer_precision.h"
#include "trainer/config/recipe_check.h"
#include "trainer/config/recipe_fields.h"
#include "trainer/config/recipe_file.h"
#include "trainer/config/recipe_groups.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;
using precision::GemmOperands;
using precision::kGemms;
using precision::kOperandSlotNames;
using precision::OperandSlot;
using precision::OperandTable;
using precision::Recipe;

std::string slot_name(OperandSlot slot) {
  return std::string(kOperandSlotNames[static_cast<size_t>(slot)]);
}

// What an operand is, with the compute type in the place of "bf16".
std::string operand_text(const OperandTable& table, OperandSlot slot, const Recipe& recipe) {
  return table[slot].quantized() ? describe(table[slot]) : std::string(name(recipe.compute));
}

// Where recipes would run: on this machine's GPU, otherwise on its processor.
class Place {
 public:
  explicit Place(Device device) {
    std::string why;
    if (device == Device::kCuda) {
      ops_ = make_backend(device);
    } else if (device == Device::kAuto) {
      ops_ = ask_gpu(why);
    }
    if (ops_ == nullptr) ops_ = ops::make_cpu_ops();
  }
  ops::Ops& ops() const { return *ops_; }
  std::string text() const {
    return ops_->in_host_memory() ? "this processor" : fmt::format("the {}", ops_->name());
  }
  // Any product of the recipe, in layers of a size that no library has objections to.
  bool emulates(const Recipe& recipe) const {
    Config config = load_model_words({"llama-1b"}).config;
    config.model.vocab_size = kAssumedVocab;
    config.precision.loaded = recipe;
    return emulated(config, *ops_);
  }

 private:
  std::unique_ptr<ops::Ops> ops_;
};

// How the product is made in these layers: "emulated" where it is in one of them.
std::string_view how_it_runs(const Config& config, const LayerGroup& group,
                             const GemmOperands& gemm, const Place& place,
                             const NativeProducts& native) {
  const auto which = static_cast<precision::Gemm>(&gemm - kGemms.data());
  return emulation_text(
      std::any_of(group.modules.begin(), group.modules.end(), [&](int64_t module) {
        return emulated(config, module, group.table, which, place.ops(), native);
      }));
}

struct Widths {
  size_t left = 0, right = 0;
};
Widths widths_of(const OperandTable& table, const Recipe& recipe) {
  Widths widths;
  for (const GemmOperands& gemm : kGemms) {
    widths.left = std::max(widths.left, operand_text(table, gemm.left, recipe).size());
    widths.right = std::max(widths.right, operand_text(table, gemm.right, recipe).size());
  }
  return widths;
}
std::string gemm_line(const GemmOperands& gemm, const OperandTable& table, const Recipe& recipe,
                      const Widths& widths) {
  return fmt::format("{}  {:<8} {:<{}}  {:<7} {:<{}}", gemm.name, slot_name(gemm.left),
                     operand_text(table, gemm.left, recipe), widths.left, slot_name(gemm.right),
                     operand_text(table, gemm.right, recipe), widths.right);
}

Json prose_json(const Recipe& recipe, const Place& place) {
  Json json = {{"name", recipe.name}};
  for_each_prose(recipe, [&](const char* key, const std::string& text) { json[key] = text; });
  json["compute"] = name(recipe.compute);
  json["device"] = place.ops().name();
  json["emulated"] = place.emulates(recipe);
  return json;
}

// ---- list ------------------------------------------------------------------------------------

void list_recipes(bool as_json) {
  const Place place(Device::kAuto);
  std::vector<Recipe> recipes;
  for (const std::string_view name : recipe_names()) {
    recipes.push_back(load_recipe(std::string(name)));
  }
  if (as_json) {
    Json json = Json::array();
    for (const Recipe& recipe : recipes) json.push_back(prose_json(recipe, place));
    fmt::print("{}\n", json.dump(2));
    return;
  }
  size_t name_width = 0, title_width = 0;
  for (const Recipe& recipe : recipes) {
    name_width = std::max(name_width, recipe.name.size());
    title_width = std::max(title_width, recipe.title.size());
  }
  fmt::print("{:<{}}  {:<9}  {:<{}}  {}\n", "recipe", name_width, "runs here", "what it is",
             title_width, "source");
  for (const Recipe& recipe : recipes) {
    fmt::print("{:<{}}  {:<9}  {:<{}}  {}\n", recipe.name, name_width,
               emulation_text(place.emulates(recipe)), recipe.title, title_width, recipe.paper);
  }
  fmt::print("here: {}\n", place.text());
}

// ---- show ------------------------------------------------------------------------------------

Json operands_json(const OperandTable& table) {
  Json json;
  for (size_t slot = 0; slot < precision::kOperandSlots; ++slot) {
    Json& operand = json[std::string(kOperandSlotNames[slot])];
    for_each_field(table.specs[slot], [&]<class T>(const char* key, const T& field) {
      if constexpr (HasChoices<T>) {
        operand[key] = choice_name(field);
      } else {
        operand[key] = field;
      }
    });
  }
  return json;
}

// The text is a recipe file itself: the table per GEMM stands in comments.
void show_recipe(const std::string& name_or_path, bool as_json) {
  const Recipe recipe = load_recipe(name_or_path);
  const Place place(Device::kAuto);
  if (as_json) {
    Json json = prose_json(recipe, place);
    json["operands"] = operands_json(recipe.operands);
    json["toml"] = to_toml(recipe);
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("# {}, {} on {}\n#\n", recipe.name, emulation_text(place.emulates(recipe)),
             place.text());
  const Widths widths = widths_of(recipe.operands, recipe);
  for (const GemmOperands& gemm : kGemms) {
    fmt::print("# {}\n", gemm_line(gemm, recipe.operands, recipe, widths));
  }
  fmt::print("\n{}", to_toml(recipe));
}

// ---- check -----------------------------------------------------------------------------------

Json check_json(const Config& config, const Place& place) {
  const Recipe& recipe = config.precision.loaded;
  const NativeProducts native(place.ops(), config.compute_dtype());
  Json json = {{"recipe", recipe.name},
               {"model", config.model.preset},
               {"n_layers", config.model.n_layers},
               {"micro_batch", config.train.micro_batch},
               {"seq_len", config.train.seq_len},
               {"steps", config.train.steps},
               {"device", place.ops().name()},
               {"phases", Json::array()}};
  for (const PhaseGroups& phase : groups_of(config)) {
    Json groups = Json::array();
    for (const LayerGroup& group : phase.groups) {
      Json gemms;
      for (const GemmOperands& gemm : kGemms) {
        gemms[std::string(gemm.name)] = {
            {slot_name(gemm.left), operand_text(group.table, gemm.left, recipe)},
            {slot_name(gemm.right), operand_text(group.table, gemm.right, recipe)},
            {"runs", how_it_runs(config, group, gemm, place, native)}};
      }
      groups.push_back({{"layers", module_names(group.modules)}, {"gemms", gemms}});
    }
    json["phases"].push_back(
        {{"first_step", phase.first_step}, {"last_step", phase.last_step}, {"groups", groups}});
  }
  return json;
}

void print_check(const Config& config, const Place& place) {
  const Recipe& recipe = config.precision.loaded;
  const NativeProducts native(place.ops(), config.compute_dtype());
  const TrainConfig& t = config.train;
  fmt::print("{} in {}: {} blocks, micro-batches of {} x {} tokens, {} steps; on {}\n", recipe.name,
             config.model.preset.empty() ? "a model by its dimensions" : config.model.preset,
             config.model.n_layers, t.micro_batch, t.seq_len, t.steps, place.text());
  for (const PhaseGroups& phase : groups_of(config)) {
    fmt::print("steps {} to {}\n", phase.first_step, phase.last_step);
    for (const LayerGroup& group : phase.groups) {
      fmt::print("  {}\n", module_names(group.modules));
      const Widths widths = widths_of(group.table, recipe);
      for (const GemmOperands& gemm : kGemms) {
        const std::string line = gemm_line(gemm, group.table, recipe, widths);
        fmt::print("    {}  {}\n", line, how_it_runs(config, group, gemm, place, native));
      }
    }
  }
  fmt::print("embeddings, head, norms and attention: {}; sums, master weights, gradients: fp32\n",
             name(recipe.compute));
}

void check_recipe(const std::string& name_or_path, std::vector<std::string> words, bool as_json) {
  words.push_back("precision.recipe=" + name_or_path);
  LoadedConfig loaded = load_model_words(words);
  Config& config = loaded.config;
  // On the device of a run that is described, otherwise on the best there is.
  const bool says_device = loaded.origins.at("run.device") != "default";
  const Place place(says_device ? config.run.device : Device::kAuto);
  const int64_t given = config.model.vocab_size;  // 0: a corpus says
  finish_model(config, given == 0 ? kAssumedVocab : given);
  if (as_json) {
    fmt::print("{}\n", check_json(config, place).dump(2));
  } else {
    print_check(config, place);
  }
}

}  // namespace

void add_recipe_command(CLI::App& app, int&) {
  CLI::App* recipe = app.add_subcommand("recipe", "Precision recipes: what there is, what it does");
  recipe->require_subcommand(1);
  recipe->footer("Example:\n  qstep recipe show nvfp4 > my.toml");

  struct Arguments {
    std::string name;
    std::vector<std::string> words;
    bool json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  const auto add_name = [arguments](CLI::App* command) {
    command->add_option("recipe", arguments->name, "a name that list shows, or a file")->required();
  };
  const auto add_json = [arguments](CLI::App* command) {
    command->add_flag("--json", arguments->json, "as JSON");
  };

  CLI::App* list = recipe->add_subcommand("list", "The recipes in this binary");
  add_json(list);
  list->footer("Example:\n  qstep recipe list");
  list->callback([arguments] { list_recipes(arguments->json); });

  CLI::App* show = recipe->add_subcommand("show", "A recipe: its operands per GEMM, and as TOML");
  add_name(show);
  add_json(show);
  show->footer("Example:\n  qstep recipe show nvfp4 > my.toml");
  show->callback([arguments] { show_recipe(arguments->name, arguments->json); });

  CLI::App* check = recipe->add_subcommand(
      "check", "Every problem of a recipe, or what it runs in each layer of a model");
  add_name(check);
  check
      ->add_option("words", arguments->words,
                   "a preset or a TOML file, then overrides section.key=value; llama-15m if not "
                   "given")
      ->type_name("[MODEL|FILE] [KEY=VALUE ...]");
  add_json(check);
  check->footer(
      "Examples:\n"
      "  qstep recipe check my.toml\n"
      "  qstep recipe check nvfp4 gpt2-124m train.micro_batch=4 train.seq_len=256\n"
      "  qstep recipe check nvfp4-late-bf16 run.toml --json");
  check->callback(
      [arguments] { check_recipe(arguments->name, arguments->words, arguments->json); });

  add_recipe_ledger(*recipe);
}

}  // namespace qstep::trainer
