#include "trainer/config/recipe_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "ops/error.h"
#include "trainer/base/nearest.h"
#include "trainer/config/builtin_recipes.h"
#include "trainer/config/config_options.h"

namespace qstep::trainer {

namespace {

bool is_path(const std::string& name) {
  return name.find('/') != std::string::npos || name.ends_with(".toml");
}

std::optional<std::string> text_of(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return std::nullopt;
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) return std::nullopt;
  return text;
}

RecipeReading not_found(const std::string& why) {
  RecipeReading reading;
  reading.found = false;
  reading.problems.push_back(why);
  return reading;
}

// One that begins with what was typed ("fp8"), else the fewest edits.
std::string nearest_name(const std::string& typed) {
  std::vector<std::string_view> names = recipe_names(), longer;
  std::copy_if(names.begin(), names.end(), std::back_inserter(longer),
               [&](std::string_view name) { return !typed.empty() && name.starts_with(typed); });
  return nearest(typed, longer.empty() ? names : longer);
}

}  // namespace

std::vector<std::string_view> recipe_names() {
  std::vector<std::string_view> names;
  for (const BuiltinRecipe& recipe : builtin_recipes()) names.push_back(recipe.name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string recipe_name(const std::string& name_or_path) {
  return is_path(name_or_path) ? std::filesystem::path(name_or_path).stem().string() : name_or_path;
}

RecipeReading read_recipe(const std::string& name_or_path) {
  if (is_path(name_or_path)) {
    const std::optional<std::string> text = text_of(name_or_path);
    if (!text) {
      return not_found(fmt::format(
          "{}: cannot read this recipe file; give the path of one, or a name that qstep recipe "
          "list shows",
          toml_string(name_or_path)));
    }
    return read_recipe_text(*text, name_or_path, recipe_name(name_or_path));
  }
  for (const BuiltinRecipe& recipe : builtin_recipes()) {
    if (recipe.name != name_or_path) continue;
    return read_recipe_text(std::string(recipe.text), fmt::format("recipes/{}.toml", recipe.name),
                            name_or_path);
  }
  return not_found(
      fmt::format("{} is no recipe: write {}, or the path of a file of your own; there are {}",
                  toml_string(name_or_path), toml_string(nearest_name(name_or_path)),
                  fmt::join(recipe_names(), ", ")));
}

precision::Recipe load_recipe(const std::string& name_or_path) {
  RecipeReading reading = read_recipe(name_or_path);
  if (reading.problems.empty()) return std::move(reading.recipe);
  if (!reading.found) throw ops::Error(ops::ExitCode::kConfig, reading.problems.front());
  const size_t n = reading.problems.size();
  throw ops::Error(ops::ExitCode::kConfig,
                   fmt::format("{} in the recipe {} (recipes/README.md describes the keys)\n  {}",
                               n == 1 ? "one problem" : fmt::format("{} problems", n), name_or_path,
                               fmt::join(reading.problems, "\n  ")));
}

}  // namespace qstep::trainer
