// qstep bench plan
#include <fmt/format.h>
#include <omp.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "parallel/launch.h"
#include "trainer/bench/bench_plan.h"
#include "trainer/command/commands.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> precision = {"bf16", "fp32"};
  int64_t rounds = 7, threads = 0;
  bool phases = false, json = false;
};

Json to_json(const PlanRow& row) {
  Json json = {{"shape", row.name},
               {"precision", row.precision},
               {"predicted_ms", row.predicted_ms},
               {"measured_ms", row.measured_ms},
               {"error", row.error()}};
  for (const auto& [name, phase] : row.phases) {
    json["phases"][name] = {{"predicted_ms", phase.predicted_ms},
                            {"measured_ms", phase.measured_ms}};
  }
  return json;
}

void print_row(const std::string& name, const std::string& precision, double predicted_ms,
               double measured_ms) {
  fmt::print(
      "{:<30}{:<8}{:>14.2f}{:>14.2f}{:>9}\n", name, precision, predicted_ms, measured_ms,
      measured_ms > 0 ? fmt::format("{:+.1f} %", 100 * (predicted_ms / measured_ms - 1)) : "-");
}

void print_phases(const PlanRow& row) {
  for (const auto& [name, phase] : row.phases) {
    print_row("  " + name, "", phase.predicted_ms, phase.measured_ms);
  }
}

void run(const Options& o) {
  if (parallel::find_launch().size > 1) {
    throw ops::Error(ops::ExitCode::kConfig,
                     "qstep bench plan measures one process: start it without mpirun or srun");
  }
  if (o.threads > 0) omp_set_num_threads(static_cast<int>(o.threads));
  if (!o.json) {
    fmt::print("{} threads | medians of {} rounds in ms\n", omp_get_max_threads(), o.rounds);
    fmt::print("{:<30}{:<8}{:>14}{:>14}{:>9}\n", "shape", "", "predicted", "measured", "error");
  }
  Json rows = Json::array();
  double largest = 0;
  for (const PlanCase& shape : plan_cases()) {
    for (const std::string& precision : o.precision) {
      const PlanRow row = bench_plan(shape, precision, o.rounds);
      largest = std::max(largest, std::abs(row.error()));
      rows.push_back(to_json(row));
      if (o.json) continue;
      print_row(row.name, precision, row.predicted_ms, row.measured_ms);
      if (o.phases) print_phases(row);
      std::fflush(stdout);
    }
  }
  if (o.json) {
    const Json out = {{"threads", omp_get_max_threads()},
                      {"rounds", o.rounds},
                      {"rows", rows},
                      {"largest_error", largest}};
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print("largest error {:.1f} %\n", 100 * largest);
  }
}

}  // namespace

void add_bench_plan_command(CLI::App& bench) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* cmd = bench.add_subcommand(
      "plan", "Hold what qstep plan --gpu cpu predicts against measured steps of six models");
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 20);
  cmd->add_option("--precision", o.precision, "recipes, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  cmd->add_option("--rounds", o.rounds, "of measuring operations and a step in turn, a model")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--threads", o.threads, "0 = all cores this process may use")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_flag("--phases", o.phases, "also every phase of a step");
  cmd->add_flag("--json", o.json, "result as JSON");
  cmd->footer("Example:\n  qstep bench plan --precision bf16 --phases");
  cmd->callback([options] { run(*options); });
}

}  // namespace qstep::trainer
