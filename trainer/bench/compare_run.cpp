#include "trainer/bench/compare_run.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "ops/parallel_for.h"
#include "parallel/launch.h"
#include "trainer/backend/backend.h"
#include "trainer/backend/emulation.h"
#include "trainer/base/durable_files.h"
#include "trainer/base/format.h"
#include "trainer/base/progress_line.h"
#include "trainer/base/signals.h"
#include "trainer/bench/compare_loss.h"
#include "trainer/bench/compare_report.h"
#include "trainer/machine/machine.h"
#include "trainer/run/run_dir.h"

namespace qstep::trainer {

namespace {

using ops::Error;
using ops::ExitCode;

class Comparison {
  using Clock = std::chrono::steady_clock;

 public:
  Comparison(const CompareOptions& options, const CompareSeams& seams)
      : options_(options), seams_(seams), dir_(options.folder), data_(options.config) {
    for (const std::string& recipe : options.recipes) {
      Config config = options.config;
      set_recipe(config, recipe);
      data_.finish(config);
      configs_.push_back(std::move(config));
    }
    untimed_ = configs_[0];
    untimed_.timing.level = TimingLevel::kOff;
    const Segments usual = usual_segments();
    segments_ = {.blocks = options.blocks.value_or(usual.blocks),
                 .warmup = options.warmup.value_or(usual.warmup),
                 .steps = options.steps.value_or(usual.steps)};
    state_.setting = setting();
    take_up();
    add_notes();
  }

  CompareOutcome run() {
    CompareProgress progress(configs_.size());
    plan(progress);
    const ExitCode code = measure(progress);
    save();
    files_.replace_file(options_.folder + "/compare.md", compare_markdown(state_, options_.abba));
    if (code != ExitCode::kOk) {
      progress.say(fmt::format("stopped; the same command goes on from {}", json_path()));
    }
    return {.code = code, .state = state_};
  }

 private:
  std::string json_path() const { return options_.folder + "/compare.json"; }

  Segments usual_segments() const {
    if (make_backend(options_.config.run.device)->in_host_memory() &&
        std::all_of(configs_.begin(), configs_.end(), [this](const Config& b) {
          return pair_memory(configs_[0], b, seams_).together;
        })) {
      return kStepByStep;
    }
    return kLongSegments;
  }

  CompareSetting setting() const {
    CompareSetting s;
    s.recipes = options_.recipes;
    for (const Config& config : configs_) {
      s.hashes.push_back(config_hash(config));
      s.emulated.push_back(emulated_on_device(config));
    }
    const Config& first = configs_[0];
    s.config_toml = to_toml(first);
    s.data = first.data.train;
    s.n_parameters = n_parameters(first.model);
    s.tokens_per_step = first.train.global_batch * first.train.seq_len;
    s.warmup = segments_.warmup;
    s.steps = segments_.steps;
    s.threads = ops::max_threads();
    s.cpu = read_machine().cpu_name;
    return s;
  }

  // What an earlier process measured here.
  void take_up() {
    if (!std::filesystem::exists(json_path())) return;
    CompareState before = read_compare_state(json_path());
    const std::string difference = setting_difference(before.setting, state_.setting);
    if (!difference.empty()) {
      throw Error(ExitCode::kConfig,
                  fmt::format("{} holds another comparison; choose another folder with -o:\n{}",
                              options_.folder, difference));
    }
    state_.pairs = std::move(before.pairs);
    state_.losses = std::move(before.losses);
  }

  void add_notes() {
    for (const Config& config : configs_) {
      const PrecisionPlan plan = plan_precision(config);
      if (plan.phases.size() < 2) continue;
      state_.notes.push_back(fmt::format(
          "{}: step times are those of steps 1 to {}; the recipe changes its formats at step {} "
          "of {}.",
          config.precision.recipe, segments_.warmup + segments_.steps, plan.phases[1].first_step,
          config.train.steps));
    }
  }

  // The pairs in the order they are measured: noise floor first.
  std::vector<PairTask> pairs() const {
    std::vector<PairTask> tasks;
    if (options_.observer) {
      tasks.push_back(
          {.a = untimed_, .b = configs_[0], .observer = true, .blocks = segments_.blocks});
    }
    for (size_t i = options_.noise_floor ? 0 : 1; i < configs_.size(); ++i) {
      tasks.push_back(
          {.a = configs_[0], .b = configs_[i], .recipe = i, .blocks = segments_.blocks});
    }
    return tasks;
  }

  std::vector<LossTask> runs() const {
    std::vector<LossTask> tasks;
    for (int64_t seed = 0; seed < options_.seeds; ++seed) {
      for (size_t i = 0; i < configs_.size(); ++i) {
        Config config = options_.config;  // the run itself finishes its model
        set_recipe(config, options_.recipes[i]);
        LossTask task{.config = std::move(config),
                      .recipe = i,
                      .seed = options_.config.train.seed + static_cast<uint64_t>(seed),
                      .folder = options_.folder};
        if (state_.loss(i, task.seed) == nullptr) tasks.push_back(std::move(task));
      }
    }
    return tasks;
  }

  void plan(CompareProgress& progress) {
    if (segments_.blocks > 0) warn_of_others(progress);
    const int64_t per_segment = segments_.warmup + segments_.steps;
    for (const PairTask& task : pairs()) {
      const auto done =
          static_cast<int64_t>(state_.pair(task.recipe, task.observer).segments_ms.size());
      const int64_t left = std::max<int64_t>(0, task.blocks * kSegmentsPerBlock - done);
      progress.plan(0, left / 2 * per_segment);
      progress.plan(task.recipe, left / 2 * per_segment);
      if (left == 0) continue;
      const PairMemory memory = pair_memory(task.a, task.b, seams_);
      progress.say(fmt::format("{} against {}: {} and {}{}", options_.recipes[0],
                               task.recipe == 0 ? "itself" : options_.recipes[task.recipe],
                               bytes_text(memory.a_bytes), bytes_text(memory.b_bytes),
                               memory.together
                                   ? " of memory together"
                                   : " of memory, one at a time: built anew for every segment"));
    }
    for (const LossTask& task : runs()) progress.plan(task.recipe, task.config.train.steps);
  }

  // What a machine does beside the steps widens every interval.
  void warn_of_others(CompareProgress& progress) const {
    double load = 0;  // runnable processes, mean of the last minute
    const int64_t cores = read_machine().usable_cores;
    if (::getloadavg(&load, 1) < 1) return;
    if (load + static_cast<double>(state_.setting.threads) <= static_cast<double>(cores) + 0.5) {
      return;
    }
    progress.say(fmt::format(
        "warning: load average {:.1f} on {} core{}: other processes take time from the steps", load,
        cores, cores == 1 ? "" : "s"));
  }

  ExitCode measure(CompareProgress& progress) {
    try {
      if (stop_wanted(seams_)) throw Interrupted{};
      for (const PairTask& task : pairs()) {
        measure_pair(state_, task, data_, progress, seams_, [this] { save_now_and_then(); });
        save();
      }
      for (const LossTask& task : runs()) {
        if (stop_wanted(seams_)) throw Interrupted{};
        const ExitCode code = train_for_loss(state_, task, progress, [this] { save(); });
        if (code != ExitCode::kOk) return code;
      }
    } catch (const Interrupted&) {
      return ExitCode::kPreempted;
    }
    finished_ = true;
    return ExitCode::kOk;
  }

  // A file that is replaced takes a few milliseconds, and disturbs the steps behind it.
  void save_now_and_then() {
    constexpr std::chrono::seconds kRest{2};
    if (Clock::now() - saved_ > kRest) save();
  }
  void save() {
    saved_ = Clock::now();
    files_.replace_file(json_path(), to_json(state_, options_.abba, finished_).dump(1) + "\n");
  }

  const CompareOptions& options_;
  const CompareSeams& seams_;
  CheckpointFiles files_;
  RunDir dir_;  // locks the folder
  StepData data_;
  std::vector<Config> configs_;
  Config untimed_;  // the baseline's
  Segments segments_{};
  Clock::time_point saved_{};
  CompareState state_;
  bool finished_ = false;
};

void require_comparable(const CompareOptions& o) {
  const auto fail = [](const std::string& text) { throw Error(ExitCode::kConfig, text); };
  if (parallel::find_launch().size > 1) {
    fail("qstep compare runs in one process: start it without mpirun and srun");
  }
  if (o.recipes.size() < ((o.noise_floor || o.observer) && o.blocks != 0 ? 1u : 2u)) {
    fail(
        "--recipes wants two or more, separated by commas; one is enough with --noise-floor or "
        "--observer");
  }
  if (o.observer && o.config.timing.level == TimingLevel::kOff) {
    fail("--observer measures what timing.level costs: expected phases or ops, found off");
  }
  if (o.blocks == 0 && o.seeds == 0) fail("--blocks 0 and no --seeds: nothing to compare");
  if (o.seeds == 0) return;
  if (o.config.data.train.empty()) {
    fail("--seeds trains: write data.train = \"corpus.h5\" (qstep data prepare makes one)");
  }
  if (StepData(o.config).validation_batches() == 0) {
    fail(o.config.data.train + " has no validation part of a whole sequence: --seeds wants one");
  }
}

}  // namespace

CompareOutcome run_compare(const CompareOptions& options, const CompareSeams& seams) {
  install_signal_handlers();
  require_comparable(options);
  if (options.config.run.threads > 0) {
    omp_set_num_threads(static_cast<int>(options.config.run.threads));
  }
  return Comparison(options, seams).run();
}

}  // namespace qstep::trainer
