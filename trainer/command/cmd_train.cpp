// qstep train: a training run from a configuration file.
#include <memory>
#include <string>
#include <vector>

#include "trainer/command/commands.h"
#include "trainer/config/config.h"
#include "trainer/run/launch_run.h"

namespace qstep::trainer {

void add_train_command(CLI::App& app, int& exit_code) {
  struct Options {
    std::vector<std::string> words;
    std::string resume;
  };
  auto options = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand("train", "Train a model as a configuration says");
  cmd->add_option("config", options->words,
                  "TOML file, then section.key=value, applied over it (qstep config list)")
      ->required();
  cmd->add_option("--resume", options->resume,
                  "auto, never, or a checkpoint folder: the same as run.resume=...");
  cmd->footer(
      "Example:\n  qstep train config.toml train.steps=500 run.dir=runs/first\n"
      "  mpirun -n 4 qstep train config.toml\n\n"
      "Ends with code 0 when done, 10 after a stop signal or 11 before a time limit (checkpoint "
      "saved;\n"
      "the same command goes on), 40 or 41 when another rank died or hangs,\n"
      "20 for a mistake in the configuration, 21 in the data, 22 a damaged checkpoint, 23 a full "
      "disk,\n"
      "30 when losses stay non-finite. SIGINT and SIGTERM save and stop; a second one stops at "
      "once.");
  cmd->callback([options, &exit_code] {
    std::vector<std::string> words = options->words;
    if (!options->resume.empty()) words.push_back("run.resume=" + options->resume);
    exit_code = static_cast<int>(launch_run([&] { return load_config_words(words).config; }));
  });
}

}  // namespace qstep::trainer
