// One table of a recipe file: its keys, taken one by one, and what is wrong with them.
#pragma once

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config/recipe_fields.h"
#include "trainer/config/toml_node.h"

namespace qstep::trainer {

// On its line of the file.
struct RecipeProblem {
  int64_t line = 0;
  std::string text;
  friend bool operator<(const RecipeProblem& a, const RecipeProblem& b) { return a.line < b.line; }
};
using RecipeProblems = std::vector<RecipeProblem>;

inline int64_t line_of(const toml::node& node) { return node.source().begin.line; }

// A key of one section that the user may have meant in another.
inline std::string other_section_with(const std::string& key) {
  const auto is_key = [&](const auto& name, auto&&...) { return key == name; };
  bool operand = std::find(precision::kOperandSlotNames.begin(), precision::kOperandSlotNames.end(),
                           key) != precision::kOperandSlotNames.end();
  if (operand) return "operands." + key;
  precision::Recipe recipe;
  std::string found;
  for_each_count(recipe, [&](const auto& name, auto&) {
    if (is_key(name)) found = "keep." + key;
  });
  for_each_delayed(recipe.delayed, [&](const auto& name, auto&, const Limits&) {
    if (is_key(name)) found = "delayed." + key;
  });
  return key == "layers" ? "keep.layers" : found;
}

// Takes keys out of one table; what nobody asked for is unknown.
class RecipeSection {
 public:
  // `prefix` stands before the keys in messages: "", "keep.", "override.".
  RecipeSection(const toml::table& table, std::string prefix, RecipeProblems& problems)
      : table_(table), prefix_(std::move(prefix)), problems_(problems) {}

  int64_t line() const { return line_of(table_); }

  const toml::node* find(std::string_view key) {
    known_.emplace(key);
    return table_.get(key);
  }

  void problem(int64_t line, const std::string& text) { problems_.push_back({line, text}); }

  // Whether the key was given and could be taken. `example` is a value that works, as TOML.
  template <class T>
  bool take_into(std::string_view key, T& field, const Limits& limits, const std::string& example) {
    const toml::node* node = find(key);
    if (node == nullptr) return false;
    const Assignment given{"", line_of(*node), to_value(*node)};
    const auto refusal = take(field, given, limits, example);
    if (refusal) {
      problem(line_of(*node), fmt::format("{0}{1} = {2}: write {1} = {3}", prefix_, key,
                                          refusal->why, refusal->instead));
    }
    return !refusal;
  }
  template <class T>
  bool take_into(std::string_view key, T& field, const Limits& limits = {}) {
    return take_into(key, field, limits, toml_value(field));
  }

  // The table or the tables under a key; a problem when it is something else.
  const toml::table* table(std::string_view key, std::string_view example) {
    const toml::node* node = find(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) {
      problem(line_of(*node), fmt::format("{} is a section, found {}: write {}", key,
                                          describe(to_value(*node)), example));
    }
    return node->as_table();
  }
  std::vector<const toml::table*> tables(std::string_view key, std::string_view example) {
    std::vector<const toml::table*> list;
    const toml::node* node = find(key);
    if (node == nullptr) return list;
    const toml::array* array = node->as_array();
    if (array != nullptr) {
      for (const toml::node& element : *array) {
        if (element.is_table()) list.push_back(element.as_table());
      }
    }
    if (array == nullptr || list.size() != array->size()) {
      problem(
          line_of(*node),
          fmt::format("{0} is a list of sections, each under [[{0}]]: write {1}", key, example));
    }
    return list;
  }

  void refuse_unknown() {
    for (const auto& [key, node] : table_) {
      const std::string name(key.str());
      if (known_.contains(name)) continue;
      const std::string elsewhere = other_section_with(name);
      problem(line_of(node),
              fmt::format("there is no key {}{}: did you mean {}?", prefix_, name,
                          elsewhere.empty() ? prefix_ + nearest(name, known_) : elsewhere));
    }
  }

 private:
  const toml::table& table_;
  std::string prefix_;
  RecipeProblems& problems_;
  std::set<std::string> known_;
};

}  // namespace qstep::trainer
