// The files of recipes/ as they were when this binary was built (recipes/embed.cmake writes the
// source).
#pragma once

#include <span>
#include <string_view>

namespace qstep::trainer {

struct BuiltinRecipe {
  std::string_view name;  // of the file, without .toml
  std::string_view text;
};

std::span<const BuiltinRecipe> builtin_recipes();

}  // namespace qstep::trainer
