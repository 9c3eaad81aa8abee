// Recipes as text: TOML both ways. recipes/README.md specifies the keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "precision/recipe.h"

namespace qstep::trainer {

// The names of the recipes in the binary, ascending.
std::vector<std::string_view> recipe_names();

// A recipe with everything that is wrong with it.
struct RecipeReading {
  precision::Recipe recipe;
  bool found = true;                  // there was a text to read
  std::vector<std::string> problems;  // "my.toml:12: ...", by line; when not found, the one reason
};

// By name, or from a file when `name_or_path` has a '/' or ends in ".toml".
RecipeReading read_recipe(const std::string& name_or_path);

// `origin` stands before the line numbers. The text has no name of its own.
RecipeReading read_recipe_text(const std::string& text, const std::string& origin,
                               const std::string& name);

// What a recipe is called: the name itself, or that of the file without folder and ".toml".
std::string recipe_name(const std::string& name_or_path);

// The same for who needs a recipe without problems: throws one Error (config) that lists all.
precision::Recipe load_recipe(const std::string& name_or_path);

// TOML that read_recipe_text reads back to the same recipe, its name given.
std::string to_toml(const precision::Recipe& recipe);

// The part of it that decides the bits, without descriptions: equal texts, equal runs.
std::string numerics_toml(const precision::Recipe& recipe);

}  // namespace qstep::trainer
