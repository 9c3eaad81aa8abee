# Writes OUTPUT, a C++ source that holds the recipe files FILES: cmake -DOUTPUT=... -DFILES="a.toml;b.toml" -P embed.cmake
set(entries "")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME_WLE)
  file(READ ${file} text)
  string(APPEND entries "    {\"${name}\", R\"recipe(${text})recipe\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Written by recipes/embed.cmake from the files of recipes/.
#include \"trainer/config/builtin_recipes.h\"

namespace qstep::trainer {

namespace {

constexpr BuiltinRecipe kRecipes[] = {
${entries}};

}  // namespace

std::span<const BuiltinRecipe> builtin_recipes() { return kRecipes; }

}  // namespace qstep::trainer
")
