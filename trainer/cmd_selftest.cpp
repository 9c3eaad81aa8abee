// qstep selftest: every quantizer on this machine against fixed vectors.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/commands.h"
#include "trainer/emulation.h"
#include "trainer/host_tensors.h"
#include "trainer/recipe_file.h"
#include "trainer/self_test.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

struct Row {
  SelfTestCase test;
  SelfTestResult result;
};

std::string_view orientation_name(const SelfTestCase& test) {
  return test.orientation == ops::Orientation::kRowwise ? "rowwise" : "columnwise";
}

std::vector<Row> run_all(const std::vector<std::string>& recipes) {
  std::vector<Row> rows;
  for (const std::string& name : recipes) {
    const precision::Recipe recipe = load_recipe(name);
    for (const SelfTestCase& test : self_test_cases(recipe)) {
      const bool known = std::any_of(rows.begin(), rows.end(),
                                     [&](const Row& other) { return other.test == test; });
      if (!known) rows.push_back({.test = test, .result = {}});
    }
  }
  const std::unique_ptr<ops::Ops> ops = ops::make_cpu_ops();
  for (Row& row : rows) {
    row.result = run_self_test(row.test, quantize_on_host(*ops));
  }
  return rows;
}

void print_text(const std::vector<Row>& rows) {
  if (rows.empty()) {
    fmt::print("nothing to test: no operand is quantized\n");
    return;
  }
  size_t width = 0;
  for (const Row& row : rows) width = std::max(width, describe(row.test).size());
  fmt::print("{:<{}}  {:<10}  {:>8}  {:>7}  result\n",
             fmt::format("quantizer ({})", emulation_text(kQuantizedEmulated)), width, "operand",
             "elements", "ms");
  double ms = 0;
  size_t passed = 0;
  for (const Row& row : rows) {
    const SelfTestResult& r = row.result;
    fmt::print("{:<{}}  {:<10}  {:>8}  {:>7.2f}  {}\n", describe(row.test), width,
               orientation_name(row.test), r.elements, r.ms,
               !r.failure.empty() ? "WRONG: " + r.failure
               : r.golden         ? "ok, checksum"
                                  : "ok");
    ms += r.ms;
    passed += r.failure.empty() ? 1 : 0;
  }
  fmt::print("{} of {} quantizers give the right bits; {:.0f} ms\n", passed, rows.size(), ms);
}

void print_json(const std::vector<Row>& rows) {
  Json list = Json::array();
  for (const Row& row : rows) {
    list.push_back({{"quantizer", describe(row.test)},
                    {"emulated", kQuantizedEmulated},
                    {"operand", orientation_name(row.test)},
                    {"elements", row.result.elements},
                    {"ms", row.result.ms},
                    {"checksum_known", row.result.golden},
                    {"passed", row.result.failure.empty()},
                    {"failure", row.result.failure}});
  }
  fmt::print("{}\n", Json{{"self_test", list}}.dump(2));
}

}  // namespace

void add_selftest_command(CLI::App& app, int&) {
  struct Arguments {
    std::vector<std::string> recipes;
    bool all = false, as_json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "selftest",
      "Run the quantizers on fixed vectors and compare every bit with what they must give");
  CLI::Option* recipe = command
                            ->add_option("--recipe", arguments->recipes,
                                         "Those of a recipe, by name or file (repeatable)")
                            ->allow_extra_args(false);
  command->add_flag("--all", arguments->all, "Those of every recipe in the binary; the default")
      ->excludes(recipe);
  command->add_flag("--json", arguments->as_json, "as JSON");
  command->footer("Example:\n  qstep selftest --recipe nvfp4");
  command->callback([arguments] {
    std::vector<std::string> recipes = arguments->recipes;
    if (recipes.empty()) {
      for (const std::string_view name : recipe_names()) recipes.emplace_back(name);
    }
    const std::vector<Row> rows = run_all(recipes);
    if (arguments->as_json) {
      print_json(rows);
    } else {
      print_text(rows);
    }
    for (const Row& row : rows) {
      if (!row.result.failure.empty()) {
        throw ops::Error(ops::ExitCode::kSelfTest, refusal(row.test, row.result));
      }
    }
  });
}

}  // namespace qstep::trainer
