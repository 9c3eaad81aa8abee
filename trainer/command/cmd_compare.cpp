// qstep compare
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/bench/compare_report.h"
#include "trainer/bench/compare_run.h"
#include "trainer/command/commands.h"
#include "trainer/config/config.h"
#include "trainer/report/report_files.h"
#include "trainer/report/report_json.h"

namespace qstep::trainer {

void add_compare_command(CLI::App& app, int& exit_code) {
  struct Options {
    CompareOptions compare{.recipes = {"bf16", "nvfp4"}, .folder = "runs/compare"};
    std::vector<std::string> words;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  CompareOptions& o = options->compare;
  CLI::App* cmd = app.add_subcommand(
      "compare", "Which recipe is faster, by how much, how sure that is, and at what loss");
  cmd->add_option("config", options->words,
                  "TOML file, then section.key=value, applied over it (qstep config list); without "
                  "data.train the tokens are synthetic");
  cmd->add_option("--recipes", o.recipes,
                  "names or files (qstep recipe list), separated by commas; the first is the "
                  "baseline")
      ->delimiter(',')
      ->allow_extra_args(false)  // what follows is the configuration
      ->capture_default_str();
  const auto usual = [](const char* what, int64_t Segments::*of) {
    return fmt::format("{} [{}; on a GPU, or where memory holds one side only, {}]", what,
                       kStepByStep.*of, kLongSegments.*of);
  };
  cmd->add_option(
         "--blocks", o.blocks,
         usual("A B B A blocks of each recipe with the baseline; 0: none", &Segments::blocks))
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30));
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  cmd->add_option("--steps", o.steps,
                  usual("steps of a segment that count, four segments a block", &Segments::steps))
      ->check(positive);
  cmd->add_option("--warmup", o.warmup,
                  usual("steps of a segment before them that do not", &Segments::warmup))
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30));
  cmd->add_option("--threshold", o.abba.threshold, "smallest difference that counts")
      ->check(CLI::Range(1e-6, 0.5))
      ->capture_default_str();
  cmd->add_flag("--noise-floor", o.noise_floor, "also the baseline against itself");
  cmd->add_flag("--observer", o.observer,
                "also the baseline with timing.level = off against itself with it on");
  cmd->add_option("--seeds", o.seeds,
                  "train every recipe for train.steps from so many seeds, and compare losses")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  cmd->add_option("-o,--output", o.folder,
                  "folder of compare.json, compare.md, report/ and the runs")
      ->capture_default_str();
  cmd->add_flag("--json", options->json, "print compare.json instead of the tables");
  cmd->footer(
      "Examples:\n"
      "  qstep compare --recipes bf16,fp32 --noise-floor model.preset=llama-1m\n"
      "  qstep compare --recipes bf16,nvfp4,mxfp8 --seeds 3 config.toml train.steps=500\n\n"
      "A stop signal ends it with code 10 and what is measured saved; the same command goes on, "
      "also\nwith more --blocks or --seeds.");
  cmd->callback([options, &exit_code] {
    options->compare.config = load_config_words(options->words).config;
    const CompareOutcome outcome = run_compare(options->compare);
    const bool done = outcome.code == ops::ExitCode::kOk;
    const std::string& folder = options->compare.folder;
    if (done) report::write_report(folder + "/report", report::report_of_folders({folder}));
    if (options->json) {
      fmt::print("{}\n", to_json(outcome.state, options->compare.abba, done).dump(1));
    } else {
      fmt::print("{}", compare_text(outcome.state, options->compare.abba));
      fmt::print("\n{0}/compare.md, {0}/compare.json{1}\n", folder,
                 done ? fmt::format(", {}/report/report.html", folder) : "");
    }
    exit_code = static_cast<int>(outcome.code);
  });
}

}  // namespace qstep::trainer
