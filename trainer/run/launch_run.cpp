#include "trainer/run/launch_run.h"

#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/world.h"
#include "trainer/base/agreement.h"
#include "trainer/base/exit_reason.h"
#include "trainer/base/signals.h"
#include "trainer/run/run_dir.h"
#include "trainer/run/run_training.h"

namespace qstep::trainer {

namespace {

using ops::Error;
using ops::ExitCode;

// Ends this process beside others that it cannot wait for.
[[noreturn]] void leave(ExitCode code, const std::string& text) {
  std::fflush(stdout);
  // Never throws: on a full disk, the log may be what cannot be written.
  if (!text.empty()) std::fputs((text + "\n").c_str(), stderr);
  std::fflush(stderr);
  ::_exit(static_cast<int>(code));
}

// Ranks with other settings would compute something else, or wait for each other.
void require_same_config(parallel::Comm& world, const Config& config) {
  const std::vector<std::string> texts = parallel::all_gather_text(world, to_toml(config));
  agree(world, [&] {
    if (texts[static_cast<size_t>(world.rank())] == texts[0]) return;
    throw Error(ExitCode::kConfig,
                "its configuration is not that of rank 0: start all ranks with the same command "
                "line, files and working folder");
  });
}

// The watchdog's last words for a main thread that is stuck.
void write_verdict(const std::string& folder, int rank, const parallel::Verdict& verdict) {
  if (has_exit_reason(folder)) return;
  ExitReason reason;
  reason.code = verdict.cause;
  reason.rank = rank;
  reason.what = verdict.text;
  write_exit_reason(folder, reason);
}

struct AgreedEnd {
  ExitCode code = ExitCode::kOk;
  std::string error;  // empty: none
};

AgreedEnd run_as_rank(parallel::Comm& world, const parallel::Launch& launch,
                      const std::function<Config()>& load) {
  RunWatch watch;
  try {
    AgreedEnd end;
    try {
      Config config;
      agree(world, [&] { config = load(); });
      require_same_config(world, config);
      agree(world, [&] {
        parallel::require_groups_in_nodes(launch, static_cast<int>(config.parallel.tensor));
      });
      const int share = parallel::cpu_share(world);
      omp_set_num_threads(config.run.threads > 0 ? static_cast<int>(config.run.threads) : share);
      parallel::WatchdogOptions options;
      options.limits.step_s = config.run.hang_limit_s;
      watch.start(world, options,
                  [folder = config.run.dir, rank = world.rank()](const auto& verdict) {
                    write_verdict(folder, rank, verdict);
                  });
      end.code = run_training(config, world, watch);
    } catch (const AgreedError& error) {
      end = {error.code(), error.what()};
    }
    ignore_stop_signals();
    watch.goodbye();
    return end;
  } catch (const std::exception& error) {
    // This rank alone, or because of another one. Who failed tells it; of one that could not, the
    // lowest rank that is left.
    const ExitCode code = exit_code_of(error);
    watch.farewell(code, error.what());
    const std::optional<parallel::Verdict> verdict = watch.verdict();
    if (!is_symptom(code) || !verdict) {
      leave(code, fmt::format("rank {}: {}", world.rank(), error_text(error)));
    }
    // MPI may have noticed first, and knows less.
    leave(code, is_symptom(verdict->cause) && watch.i_report()
                    ? fmt::format("error: {}", verdict->text)
                    : "");
  }
}

}  // namespace

ExitCode launch_run(const std::function<Config()>& load) {
  const parallel::Launch launch = parallel::find_launch();
  std::unique_ptr<parallel::Comm> world = parallel::make_world(launch);
  if (world->size() == 1) return run_training(load());
  install_signal_handlers();
  const AgreedEnd end = run_as_rank(*world, launch, load);
  const bool tells = world->rank() == 0;
  world.reset();  // waits for the others
  if (tells && !end.error.empty()) throw Error(end.code, end.error);
  return end.code;
}

}  // namespace qstep::trainer
