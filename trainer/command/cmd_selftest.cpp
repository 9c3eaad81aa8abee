// qstep selftest: every quantizer of this machine, on its processor and on its GPU, against fixed
// vectors.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/backend/emulation.h"
#include "trainer/command/commands.h"
#include "trainer/config/recipe_file.h"
#include "trainer/quantizers/self_test_run.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

std::string_view orientation_name(const SelfTestCase& test) {
  return test.orientation == ops::Orientation::kRowwise ? "rowwise" : "columnwise";
}

void print_text(const DeviceSelfTest& run) {
  if (!run.not_run.empty()) {
    fmt::print("{}: not run: {}\n", run.device, run.not_run);
    return;
  }
  size_t width = 0;
  for (const SelfTestRow& row : run.rows) width = std::max(width, describe(row.test).size());
  fmt::print("{:<{}}  {:<10}  {:>8}  {:>7}  result\n",
             fmt::format("quantizer ({})", emulation_text(kQuantizedEmulated)), width, "operand",
             "elements", "ms");
  double ms = 0;
  for (const SelfTestRow& row : run.rows) {
    const SelfTestResult& r = row.result;
    fmt::print("{:<{}}  {:<10}  {:>8}  {:>7.2f}  {}\n", describe(row.test), width,
               orientation_name(row.test), r.elements, r.ms,
               !r.failure.empty() ? "WRONG: " + r.failure
               : r.golden         ? "ok, checksum"
                                  : "ok");
    ms += r.ms;
  }
  fmt::print("{}: {} of {} quantizers give the right bits; {:.0f} ms\n", run.device, run.n_passed(),
             run.rows.size(), ms);
}

Json rows_json(const DeviceSelfTest& run) {
  Json list = Json::array();
  for (const SelfTestRow& row : run.rows) {
    list.push_back({{"quantizer", describe(row.test)},
                    {"emulated", kQuantizedEmulated},
                    {"operand", orientation_name(row.test)},
                    {"elements", row.result.elements},
                    {"ms", row.result.ms},
                    {"checksum_known", row.result.golden},
                    {"passed", row.result.failure.empty()},
                    {"failure", row.result.failure}});
  }
  return list;
}

void print_json(const DeviceSelfTest& cpu, const DeviceSelfTest& gpu) {
  Json out{{"self_test", rows_json(cpu)}};
  out["gpu"] = {{"device", gpu.device}, {"not_run", gpu.not_run}, {"self_test", rows_json(gpu)}};
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

void add_selftest_command(CLI::App& app, int&) {
  struct Arguments {
    std::vector<std::string> recipes;
    bool all = false, as_json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("selftest",
                                         "Run the quantizers on fixed vectors, on the processor "
                                         "and on the GPU where there is one, and "
                                         "compare every bit with what they must give");
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
    const std::vector<SelfTestCase> cases = self_test_cases(recipes);
    if (cases.empty() && !arguments->as_json) {
      fmt::print("nothing to test: no operand is quantized\n");
      return;
    }
    const DeviceSelfTest cpu = self_test_cpu(cases), gpu = self_test_gpu(cases);
    if (arguments->as_json) {
      print_json(cpu, gpu);
    } else {
      print_text(cpu);
      print_text(gpu);
    }
    require_passed(cpu);
    require_passed(gpu);
  });
}

}  // namespace qstep::trainer
