// How far a comparison is, on stderr: one line that is redrawn on a terminal, elsewhere a line
// every few seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace qstep::trainer {

class CompareProgress {
 public:
  explicit CompareProgress(size_t n_recipes);
  ~CompareProgress();
  CompareProgress(const CompareProgress&) = delete;
  CompareProgress& operator=(const CompareProgress&) = delete;

  // Announces steps of a recipe, before the first advance.
  void plan(size_t recipe, int64_t steps) { work_[recipe].left += steps; }
  // What is being done.
  void enter(std::string what);
  // So many steps are done, and took so long.
  void advance(size_t recipe, int64_t steps, double seconds);
  // So many steps need not be done.
  void skip(size_t recipe, int64_t steps) { work_[recipe].left -= steps; }
  // A line that stays.
  void say(const std::string& text);

  // At the speed of the steps so far, each recipe at its own; one without any at the slowest.
  double seconds_left() const;
  double share_done() const;  // of all steps

 private:
  using Clock = std::chrono::steady_clock;
  struct Work {
    int64_t left = 0, done = 0;
    double seconds = 0;
  };

  void draw();
  void wipe();

  const bool terminal_;
  std::vector<Work> work_;
  std::string what_;
  Clock::time_point last_ = Clock::now();
  bool drawn_ = false;
};

}  // namespace qstep::trainer
