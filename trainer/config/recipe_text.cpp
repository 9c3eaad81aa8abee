// Recipes as TOML.
#include <fmt/format.h>

#include "trainer/config/recipe_fields.h"
#include "trainer/config/recipe_file.h"

namespace qstep::trainer {

namespace {

using precision::kOperandSlotNames;
using precision::kOperandSlots;
using precision::OperandTable;
using precision::QuantSpec;
using precision::Recipe;

// "nvfp4", or { format = "nvfp4", block = "16x16" } with what differs from the format's default.
std::string operand_text(const QuantSpec& spec) {
  QuantSpec usual = default_spec(spec.format);
  if (spec == usual) return toml_value(spec.format);
  std::vector<std::string> fields, usual_fields;
  const auto collect = [](std::vector<std::string>& into) {
    return [&into](std::string_view key, const auto& field) {
      into.push_back(fmt::format("{} = {}", key, toml_value(field)));
    };
  };
  for_each_field(spec, collect(fields));
  for_each_field(usual, collect(usual_fields));
  std::string text = "{ " + fields[0];
  for (size_t i = 1; i < fields.size(); ++i) {
    if (fields[i] != usual_fields[i]) text += ", " + fields[i];
  }
  return text + " }";
}

std::string operand_lines(const OperandTable& operands,
                          const std::array<bool, kOperandSlots>& given) {
  std::string text;
  for (size_t slot = 0; slot < kOperandSlots; ++slot) {
    if (!given[slot]) continue;
    text +=
        fmt::format("{:<8} = {}\n", kOperandSlotNames[slot], operand_text(operands.specs[slot]));
  }
  return text;
}

std::string keep_lines(const Recipe& recipe) {
  std::string text;
  for_each_count(recipe, [&](std::string_view key, const precision::BlockCount& count) {
    if (count == precision::BlockCount{}) return;
    text += fmt::format("{} = {}\n", key,
                        count.fraction > 0 ? toml_value(count.fraction) : toml_value(count.n));
  });
  if (!recipe.keep.empty()) {
    std::vector<std::string> quoted;
    for (const std::string& pattern : recipe.keep) quoted.push_back(toml_string(pattern));
    text += fmt::format("layers = [{}]\n", fmt::join(quoted, ", "));
  }
  return text.empty() ? text : "\n[keep]\n" + text;
}

}  // namespace

std::string numerics_toml(const Recipe& recipe) {
  std::string text = fmt::format("compute = {}\n", toml_value(recipe.compute));
  if (recipe.quantized()) {
    std::array<bool, kOperandSlots> all;
    all.fill(true);
    text += "\n[operands]\n" + operand_lines(recipe.operands, all);
  }
  text += keep_lines(recipe);
  for (const precision::LayerOverride& o : recipe.overrides) {
    text += fmt::format("\n[[override]]\nlayers = {}\n", toml_string(o.layers)) +
            operand_lines(o.operands, o.given);
  }
  for (const precision::RecipeSwitch& s : recipe.switches) {
    text += "\n[[switch]]\n";
    text += s.from_step > 0 ? fmt::format("step = {}\n", s.from_step)
                            : fmt::format("at = {}\n", toml_value(s.from_fraction));
    text += operand_lines(s.operands, s.given);
  }
  if (recipe.has_delayed()) {
    text += "\n[delayed]\n";
    for_each_delayed(recipe.delayed, [&](std::string_view key, const auto& field, const Limits&) {
      text += fmt::format("{} = {}\n", key, toml_value(field));
    });
  }
  return text;
}

std::string to_toml(const Recipe& recipe) {
  std::string text;
  for_each_prose(recipe, [&](std::string_view key, const std::string& value) {
    if (!value.empty()) text += fmt::format("{} = {}\n", key, toml_string(value));
  });
  return text + numerics_toml(recipe);
}

}  // namespace qstep::trainer
