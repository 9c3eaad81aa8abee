#include "trainer/bench/compare_loss.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "trainer/base/durable_files.h"
#include "trainer/base/json_lines.h"
#include "trainer/config/recipe_file.h"
#include "trainer/run/run_dir.h"
#include "trainer/run/run_training.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::json;
using ops::Error;
using ops::ExitCode;

// The last whole row of this type within the last 64 KiB of a metrics file; null: none.
Json last_row(const std::string& path, std::string_view type) {
  constexpr std::streamoff kTail = 1 << 16;
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return nullptr;
  in.seekg(std::max<std::streamoff>(0, in.tellg() - kTail));
  Json found = nullptr;
  for (std::string line; std::getline(in, line);) {
    Json row = Json::parse(line, nullptr, false);  // the first one may be cut
    if (row.is_object() && type_of_row(row) == type) found = std::move(row);
  }
  return found;
}

int64_t last_step(const std::string& metrics) {
  const Json row = last_row(metrics, "step");
  return row.is_null() ? 0 : row.value("step", int64_t{0});
}

// Standard output goes to a file as long as this lives: a run prints its lines there, and the
// command's own output stays what it is.
class StdoutToFile {
 public:
  explicit StdoutToFile(const std::string& path) {
    std::fflush(stdout);
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) throw Error(ExitCode::kDisk, fmt::format("{} cannot be written", path));
    saved_ = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    ::dup2(file, STDOUT_FILENO);
    ::close(file);
  }
  ~StdoutToFile() {
    std::fflush(stdout);
    if (saved_ >= 0) {
      ::dup2(saved_, STDOUT_FILENO);
      ::close(saved_);
    } else {
      ::close(STDOUT_FILENO);  // it was closed before
    }
  }
  StdoutToFile(const StdoutToFile&) = delete;
  StdoutToFile& operator=(const StdoutToFile&) = delete;

 private:
  int saved_ = -1;
};

// Follows a run by what it writes.
class RunFollower {
 public:
  RunFollower(std::string metrics, int64_t step, size_t recipe, CompareProgress& progress)
      : metrics_(std::move(metrics)), step_(step), recipe_(recipe), progress_(progress) {
    thread_ = std::thread([this] { follow(); });
  }
  ~RunFollower() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  using Clock = std::chrono::steady_clock;

  void look() {
    const int64_t step = last_step(metrics_);
    if (step <= step_) return;
    const auto now = Clock::now();
    progress_.advance(recipe_, step - step_, std::chrono::duration<double>(now - since_).count());
    step_ = step;
    since_ = now;
  }
  void follow() {
    constexpr std::chrono::milliseconds kEvery{500};
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kEvery, [this] { return over_; })) look();
    look();
  }

  std::string metrics_;
  int64_t step_;
  size_t recipe_;
  CompareProgress& progress_;
  Clock::time_point since_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;  // last: starts when everything else exists
};

Config config_of(const LossTask& task) {
  Config config = task.config;
  config.train.seed = task.seed;
  if (config.train.eval_every == 0) config.train.eval_every = config.train.steps;
  config.run.dir = run_folder(task);
  config.run.resume = "auto";
  config.run.keep_last = 1;
  return config;
}

}  // namespace

std::string run_folder(const LossTask& task) {
  return fmt::format("{}/runs/{}-{}-s{}", task.folder, task.recipe,
                     recipe_name(task.config.precision.recipe), task.seed);
}

ExitCode train_for_loss(CompareState& state, const LossTask& task, CompareProgress& progress,
                        const std::function<void()>& save) {
  const Config config = config_of(task);
  const std::string& folder = config.run.dir;
  const std::string metrics = folder + "/metrics.jsonl";
  const CheckpointFiles files;
  files.create_folders(folder);
  CompareLoss result{.recipe = task.recipe, .seed = task.seed, .loss = std::nullopt};
  const int64_t before = last_step(metrics);
  progress.skip(task.recipe, before);
  progress.enter(
      fmt::format("{}, seed {}, {} steps", config.precision.recipe, task.seed, config.train.steps));
  try {
    const StdoutToFile quiet(folder + "/log.txt");
    const RunFollower follower(metrics, before, task.recipe, progress);
    const ExitCode code = run_training(config);
    if (code != ExitCode::kOk) return code;
    const Json row = last_row(metrics, "eval");
    if (row.is_null() || row.value("step", int64_t{0}) != config.train.steps) {
      throw Error(ExitCode::kInternal, folder + ": the run ended without an evaluation");
    }
    // A number that is not finite is null in the file.
    if (row.at("loss").is_number()) result.loss = row.at("loss").get<double>();
  } catch (const Error& error) {
    if (error.code() != ExitCode::kNonFinite) throw;
  }
  state.losses.push_back(result);
  save();
  const std::string checkpoints = checkpoints_of(folder);
  if (std::filesystem::exists(checkpoints)) files.remove_tree(checkpoints);
  return ExitCode::kOk;
}

}  // namespace qstep::trainer
