#include "trainer/run/run_training.h"

#include <fmt/format.h>
#include <omp.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "trainer/base/agreement.h"
#include "trainer/base/exit_reason.h"
#include "trainer/base/signals.h"
#include "trainer/run/run_dir.h"
#include "trainer/run/train_run.h"

namespace qstep::trainer {

using ops::Error;
using ops::ExitCode;

namespace {

std::string_view end_text(ExitCode code) {
  if (code == ExitCode::kPreempted) return "stop signal";
  return code == ExitCode::kTimeLimit ? "time limit" : "";
}

// What is left to say about the end of a run, whatever it was.
class RunEnd {
 public:
  RunEnd(const Config& config, const RunDir* dir, int rank) : folder_(config.run.dir) {
    reason_.rank = rank;
    if (dir != nullptr) reason_.restart_count = dir->restart_count();
  }

  void write(ExitCode code, std::string_view what, const TrainRun* run) {
    reason_.code = code;
    reason_.what = what;
    if (run != nullptr) {
      reason_.step = run->step();
      reason_.last_checkpoint = run->last_checkpoint();
      reason_.config_hash = run->hash();
    }
    write_exit_reason(folder_, reason_);
  }

  // When another error is already on its way, which is the one to tell: a full disk must not hide
  // it.
  void try_write(ExitCode code, const std::string& what, const TrainRun* run) {
    try {
      write(code, what, run);
    } catch (const std::exception& also) {
      std::fputs(fmt::format("warning: {}\n", also.what()).c_str(), stderr);
    }
  }

 private:
  std::string folder_;
  ExitReason reason_;
};

}  // namespace

ExitCode run_training(const Config& config, parallel::Comm& comm, RunWatch& watch) {
  if (config.data.train.empty()) {
    throw Error(
        ExitCode::kConfig,
        "data.train is not set: write data.train = \"corpus.h5\" (qstep data prepare makes one)");
  }
  std::optional<RunDir> dir;
  on_first_rank(comm, [&] {
    dir.emplace(config.run.dir);
    dir->remove_exit_reason();  // of the process before: a killed one leaves none
  });
  const RunDir* const own = dir ? &*dir : nullptr;
  RunEnd end(config, own, comm.rank());
  std::unique_ptr<TrainRun> run;
  try {
    agree(comm, [&] { run = std::make_unique<TrainRun>(config, comm, watch, own); });
    const ExitCode code = run->run();
    if (own != nullptr) end.write(code, end_text(code), run.get());
    return code;
  } catch (const std::exception& error) {
    // The cause is what a reader of the file needs, also where this rank ends for another one's. A
    // rank that was stopped, and wakes up alone, must not write over what the others have said.
    const auto verdict = watch.verdict();
    const bool said = verdict && has_exit_reason(config.run.dir);
    if (watch.i_report() && !said) {
      end.try_write(verdict ? verdict->cause : exit_code_of(error), error.what(), run.get());
    }
    throw;
  }
}

ExitCode run_training(const Config& config) {
  install_signal_handlers();
  if (config.run.threads > 0) omp_set_num_threads(static_cast<int>(config.run.threads));
  const auto alone = parallel::make_single();
  RunWatch nobody;
  return run_training(config, *alone, nobody);
}

}  // namespace qstep::trainer
