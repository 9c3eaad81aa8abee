// The watchdog over the ranks of a run; nothing where there is one rank.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "parallel/watchdog.h"

namespace qstep::trainer {

class RunWatch {
 public:
  RunWatch() = default;
  RunWatch(const RunWatch&) = delete;
  RunWatch& operator=(const RunWatch&) = delete;

  // All ranks together. From here on the watchdog hears of the world's collectives, and fails them
  // after a verdict.
  void start(parallel::Comm& world, const parallel::WatchdogOptions& options,
             parallel::Watchdog::LastWords last_words) {
    watchdog_ = parallel::Watchdog::start(world, options, std::move(last_words));
    world.observe(watchdog_.get());
    observed_ = &world;
  }
  ~RunWatch() {
    if (observed_ != nullptr) observed_->observe(nullptr);
  }

  // What hears of the world's collectives; null where there is one rank.
  parallel::CollectiveObserver* observer() const { return watchdog_.get(); }

  void enter(parallel::Phase phase, int64_t step) {
    if (watchdog_) watchdog_->enter_phase(phase, step);
  }
  void farewell(ops::ExitCode code, std::string_view text) {
    if (watchdog_) watchdog_->farewell(code, text);
  }
  void goodbye() {
    if (watchdog_) watchdog_->goodbye();
  }
  std::optional<parallel::Verdict> verdict() const {
    return watchdog_ ? watchdog_->verdict() : std::nullopt;
  }
  // Whether this is the rank that tells of the run's end.
  bool i_report() const { return !watchdog_ || watchdog_->i_report(); }

 private:
  std::unique_ptr<parallel::Watchdog> watchdog_;
  parallel::Comm* observed_ = nullptr;
};

}  // namespace qstep::trainer
