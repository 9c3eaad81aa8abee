#include "trainer/bench/bench_ranks.h"

#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <cstdio>

#include "parallel/world.h"
#include "trainer/backend/rank_device.h"
#include "trainer/base/agreement.h"
#include "trainer/base/exit_reason.h"
#include "trainer/config/rank_check.h"

namespace qstep::trainer {

ops::ExitCode bench_on_ranks(const BenchWorkload& workload,
                             const std::function<void(parallel::Comm&)>& f) {
  std::unique_ptr<parallel::Comm> world = parallel::make_world(parallel::find_launch());
  if (world->size() > 1) omp_set_num_threads(parallel::cpu_share(*world));
  workload.set_threads();
  if (world->size() == 1) {
    f(*world);
    return ops::ExitCode::kOk;
  }
  try {
    f(*world);
    return ops::ExitCode::kOk;
  } catch (const AgreedError& error) {
    const bool tells = world->rank() == 0;
    world.reset();  // waits for the others, which it does not behind an exception
    if (tells) throw ops::Error(error.code(), error.what());
    return error.code();
  } catch (const std::exception& error) {
    // The world's end would wait for the others, which wait for this rank.
    std::fflush(stdout);
    std::fputs(fmt::format("rank {}: {}\n", world->rank(), error_text(error)).c_str(), stderr);
    ::_exit(static_cast<int>(exit_code_of(error)));
  }
}

std::vector<Config> configs_on_ranks(const BenchWorkload& workload,
                                     const std::vector<std::string>& recipes,
                                     parallel::Comm& world) {
  std::vector<Config> configs;
  agree(world, [&] {
    for (const std::string& recipe : recipes) {
      configs.push_back(workload.config(recipe));
      require_ranks(configs.back(), world.size());
    }
  });
  const RankDevice chosen = choose_device(configs[0].run.device, world);
  if (world.rank() == 0 && !chosen.note.empty()) {
    fmt::print(stderr, "warning: {}\n", chosen.note);
  }
  for (Config& config : configs) config.run.device = chosen.device;
  return configs;
}

}  // namespace qstep::trainer
