// qstep: the command line, and the one place where errors end a process.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "ops/error.h"
#include "parallel/launch.h"
#include "trainer/base/exit_reason.h"
#include "trainer/base/nearest.h"
#include "trainer/base/signals.h"
#include "trainer/command/commands.h"

namespace {

using qstep::ops::ExitCode;

int fail(ExitCode code, const std::string& text) {
  std::fflush(stdout);
  std::fputs((text + "\n").c_str(), stderr);  // the code counts, also where nothing can be told
  return static_cast<int>(code);
}

// All ranks of a launch read one command line, and know nothing of each other yet.
bool tells_of_command_line() {
  try {
    return qstep::parallel::find_launch().rank == 0;
  } catch (const qstep::ops::Error&) {
    return true;  // which rank this is cannot be known
  }
}

// The code of a rank that leaves the telling to rank 0. mpirun ends the others as soon as it hears
// of an end with an error, so rank 0 gets the time to tell.
int end_behind_first_rank(int parse_code) {
  if (parse_code == static_cast<int>(CLI::ExitCodes::Success)) return parse_code;
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  return static_cast<int>(ExitCode::kConfig);
}

// The first word that should be a subcommand and is none, with the nearest one.
std::optional<std::string> unknown_command(const CLI::App& app,
                                           const std::vector<std::string>& words) {
  const CLI::App* level = &app;
  for (const std::string& word : words) {
    std::vector<std::string> names;
    const CLI::App* next = nullptr;
    for (const CLI::App* command : level->get_subcommands([](const CLI::App*) { return true; })) {
      if (command->get_name() == word) next = command;
      names.push_back(command->get_name());
    }
    if (names.empty() || word.starts_with('-')) return std::nullopt;
    if (next == nullptr) {
      const std::string path = level == &app ? "qstep" : "qstep " + level->get_name();
      return fmt::format(
          "there is no command \"{} {}\": did you mean \"{} {}\"? ({} --help lists all)", path,
          word, path, qstep::trainer::nearest(word, names), path);
    }
    level = next;
  }
  return std::nullopt;
}

int run(int argc, char** argv) {
  CLI::App app("Quarterstep trains transformers in low precision and measures what that buys.",
               "qstep");
  app.set_version_flag("--version", "qstep " QSTEP_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n"
      "  qstep data prepare notes/*.txt -o corpus.h5\n"
      "  qstep train config.toml data.train=corpus.h5 train.steps=500\n"
      "  qstep generate --checkpoint runs/default/checkpoints --prompt \"Once\"\n"
      "  qstep doctor\n"
      "Every command has --help with examples.");

  int exit_code = static_cast<int>(ExitCode::kOk);
  using namespace qstep::trainer;
  add_data_command(app, exit_code);
  add_train_command(app, exit_code);
  add_eval_command(app, exit_code);
  add_generate_command(app, exit_code);
  add_ckpt_command(app, exit_code);
  add_recipe_command(app, exit_code);
  add_quantize_command(app, exit_code);
  add_selftest_command(app, exit_code);
  add_report_command(app, exit_code);
  add_config_command(app, exit_code);
  add_plan_command(app, exit_code);
  add_compare_command(app, exit_code);
  add_bench_command(app, exit_code);
  add_doctor_command(app, exit_code);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (!tells_of_command_line()) return end_behind_first_rank(error.get_exit_code());
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
    const std::vector<std::string> words(argv + 1, argv + argc);
    const std::optional<std::string> unknown = unknown_command(app, words);
    return fail(
        ExitCode::kConfig,
        fmt::format("error: {}", unknown.value_or(fmt::format("{} (see --help)", error.what()))));
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    qstep::trainer::ignore_write_signals();
    const int code = run(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      return fail(ExitCode::kDisk, "error: stdout cannot be written: part of the output is lost");
    }
    return code;
  } catch (const std::exception& error) {
    return fail(qstep::trainer::exit_code_of(error), qstep::trainer::error_text(error));
  }
}
