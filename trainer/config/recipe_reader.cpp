// From TOML to a checked recipe. Problems are collected, never thrown one by one.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "trainer/config/recipe_file.h"
#include "trainer/config/recipe_section.h"

namespace qstep::trainer {

namespace {

using precision::BlockCount;
using precision::kOperandSlotNames;
using precision::kOperandSlots;
using precision::OperandProblem;
using precision::OperandTable;
using precision::QuantSpec;
using precision::Recipe;

// Operands of one section with the lines that they stand on.
struct GivenOperands {
  std::array<bool, kOperandSlots> given{};
  std::array<int64_t, kOperandSlots> lines{};
  bool sound = true;  // every one of them could be read
  bool any() const { return std::find(given.begin(), given.end(), true) != given.end(); }
};

class RecipeReader {
 public:
  RecipeReader(const toml::table& root, Recipe& recipe, RecipeProblems& problems)
      : root_(root, "", problems), recipe_(recipe), problems_(problems) {}

  void read() {
    for_each_prose(recipe_, [&](std::string_view key, std::string& text) {
      root_.take_into(key, text, Limits{}, "\"text\"");
    });
    root_.take_into("compute", recipe_.compute);
    read_base();
    read_keep();
    read_overrides();
    read_switches();
    read_delayed();
    root_.refuse_unknown();
  }

 private:
  // ---- operands -----------------------------------------------------------------------

  // "nvfp4", or {format = "nvfp4", rounding = "stochastic"}: the format's default, changed.
  bool read_operand(RecipeSection& section, std::string_view key, const toml::node& node,
                    QuantSpec& spec) {
    const size_t before = problems_.size();
    precision::QuantFormat format{};
    if (!node.is_table()) {
      if (section.take_into(key, format, Limits{}, "\"bf16\"")) spec = default_spec(format);
      return problems_.size() == before;
    }
    RecipeSection fields(*node.as_table(), std::string(key) + ".", problems_);
    if (fields.find("format") == nullptr) {
      fields.problem(line_of(node), fmt::format("{0} has no format: write {0} = {{ format = "
                                                "\"nvfp4\", ... }}",
                                                key));
    }
    const bool known = fields.take_into("format", format, Limits{}, "\"nvfp4\"");
    if (known) spec = default_spec(format);
    for_each_field(spec, [&](std::string_view field_key, auto& field) {
      if (field_key != "format") fields.take_into(field_key, field);
    });
    fields.refuse_unknown();
    return problems_.size() == before;
  }

  GivenOperands read_operands(RecipeSection& section, OperandTable& operands) {
    GivenOperands given;
    for (size_t slot = 0; slot < kOperandSlots; ++slot) {
      const toml::node* node = section.find(kOperandSlotNames[slot]);
      if (node == nullptr) continue;
      given.given[slot] = true;
      given.lines[slot] = line_of(*node);
      if (!read_operand(section, kOperandSlotNames[slot], *node, operands.specs[slot])) {
        given.sound = false;
      }
    }
    return given;
  }

  void add(const OperandProblem& p, int64_t line) {
    problems_.push_back(
        {line, fmt::format("{}: {}", kOperandSlotNames[static_cast<size_t>(p.slot)], p.text)});
  }

  // What no other operand could mend. Which operands meet in a layer follows from all sections
  // together and from the model (recipe_problems).
  void check_each(const OperandTable& operands, const GivenOperands& given) {
    for (size_t i = 0; given.sound && i < kOperandSlots; ++i) {
      if (!given.given[i]) continue;
      const auto slot = static_cast<precision::OperandSlot>(i);
      for (const OperandProblem& p : problems(slot, operands.specs[i], recipe_.compute)) {
        add(p, given.lines[i]);
      }
    }
  }

  // ---- sections -----------------------------------------------------------------------

  void read_base() {
    const toml::table* table = root_.table("operands", "[operands] and a line x_fprop = \"nvfp4\"");
    if (table == nullptr) return;
    RecipeSection section(*table, "operands.", problems_);
    const GivenOperands given = read_operands(section, recipe_.operands);
    section.refuse_unknown();
    base_sound_ = given.sound;
    if (!given.sound) return;
    for (const OperandProblem& p : problems(recipe_.operands, recipe_.compute)) {
      const auto slot = static_cast<size_t>(p.slot);
      add(p, given.given[slot] ? given.lines[slot] : section.line());
    }
  }

  void read_count(RecipeSection& section, std::string_view key, BlockCount& count) {
    const toml::node* node = section.find(key);
    if (node == nullptr) return;
    if (node->is_integer()) {
      section.take_into(key, count.n, at_least(0, kMaxDimension));
    } else {
      section.take_into(key, count.fraction,
                        Limits{.min = 0, .max = 1, .min_excluded = true, .max_excluded = true},
                        "0.15");
    }
  }

  void read_keep() {
    const toml::table* table = root_.table("keep", "[keep] and a line last_blocks = 2");
    if (table == nullptr) return;
    RecipeSection section(*table, "keep.", problems_);
    for_each_count(
        recipe_, [&](std::string_view key, BlockCount& count) { read_count(section, key, count); });
    if (const toml::node* layers = section.find("layers")) {
      const toml::array* list = layers->as_array();
      for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
        if (const auto* text = (*list)[i].as_string()) recipe_.keep.push_back(text->get());
      }
      if (list == nullptr || recipe_.keep.size() != list->size()) {
        section.problem(line_of(*layers),
                        "keep.layers is not a list of texts: write layers = "
                        "[\"blocks.*.attn_out\"]");
      }
    }
    section.refuse_unknown();
  }

  void read_overrides() {
    constexpr std::string_view kExample =
        "[[override]] and lines layers = \"blocks.*.down\", x_fprop = \"bf16\"";
    for (const toml::table* table : root_.tables("override", kExample)) {
      RecipeSection section(*table, "override.", problems_);
      precision::LayerOverride& o = recipe_.overrides.emplace_back();
      section.take_into("layers", o.layers, Limits{.not_empty = true}, "\"blocks.*.down\"");
      if (section.find("layers") == nullptr) {
        section.problem(section.line(),
                        "[[override]] names no layers: write layers = \"blocks.*.down\"");
      }
      const GivenOperands given = read_operands(section, o.operands);
      finish(section, "override", given);
      o.given = given.given;
      check_each(o.operands, given);
    }
  }

  void read_switches() {
    constexpr std::string_view kExample = "[[switch]] and lines at = 0.82, x_fprop = \"bf16\"";
    for (const toml::table* table : root_.tables("switch", kExample)) {
      RecipeSection section(*table, "switch.", problems_);
      precision::RecipeSwitch& s = recipe_.switches.emplace_back();
      section.take_into("at", s.from_fraction,
                        Limits{.min = 0, .max = 1, .min_excluded = true, .max_excluded = true},
                        "0.82");
      section.take_into("step", s.from_step, at_least(1), "1000");
      const bool at = section.find("at") != nullptr, step = section.find("step") != nullptr;
      if (at == step) {
        section.problem(section.line(),
                        fmt::format("[[switch]] has {}: write at = 0.82 (a fraction of the run) or "
                                    "step = 1000",
                                    at ? "both at and step" : "neither at nor step"));
      }
      const GivenOperands given = read_operands(section, s.operands);
      finish(section, "switch", given);
      s.given = given.given;
      check_each(s.operands, given);
    }
  }

  static void finish(RecipeSection& section, std::string_view name, const GivenOperands& given) {
    if (!given.any()) {
      section.problem(
          section.line(),
          fmt::format("[[{}]] gives no operand: write for instance x_fprop = \"bf16\"", name));
    }
    section.refuse_unknown();
  }

  void read_delayed() {
    const toml::table* table = root_.table("delayed", "[delayed] and a line history = 1024");
    if (table == nullptr) return;
    RecipeSection section(*table, "delayed.", problems_);
    for_each_delayed(recipe_.delayed, [&](std::string_view key, auto& field, const Limits& limits) {
      section.take_into(key, field, limits);
    });
    section.refuse_unknown();
    if (!recipe_.has_delayed() && base_sound_) {
      section.problem(section.line(),
                      "[delayed] without an operand that uses it: write amax = \"delayed\" in one, "
                      "or leave the section out");
    }
  }

  RecipeSection root_;
  Recipe& recipe_;
  RecipeProblems& problems_;
  bool base_sound_ = true;
};

}  // namespace

RecipeReading read_recipe_text(const std::string& text, const std::string& origin,
                               const std::string& name) {
  RecipeReading reading;
  reading.recipe.name = name;
  RecipeProblems problems;
  try {
    const toml::table root = toml::parse(text, origin);
    RecipeReader(root, reading.recipe, problems).read();
  } catch (const toml::parse_error& error) {
    problems.push_back(
        {error.source().begin.line, fmt::format("not TOML: {}", error.description())});
  }
  std::stable_sort(problems.begin(), problems.end());
  for (const RecipeProblem& p : problems) {
    reading.problems.push_back(fmt::format("{}:{}: {}", origin, p.line, p.text));
  }
  return reading;
}

}  // namespace qstep::trainer
