// Which of the ranks' rows count. A row is a sum over the steps of a window; windows that reach
// into warm-up are left out, unless no other is there.
#pragma once

#include <set>
#include <utility>
#include <vector>

#include "trainer/report/report_run.h"
#include "trainer/report/report_steps.h"

namespace qstep::trainer::report {

class WindowChoice {
 public:
  template <class Sum>
  WindowChoice(const std::vector<Sum>& rows, const StepChoice& choice)
      : after_(choice.last_warm_up_step) {
    const auto count = [&] {
      for (const Window& row : rows) {
        if (!contains(row) || !windows_.insert({row.rank, row.step}).second) continue;
        rank_steps_ += row.steps;
        ranks_.insert(row.rank);
      }
    };
    count();
    if (rank_steps_ > 0) return;
    after_ = 0;
    count();
  }

  bool contains(const Window& row) const { return row.step - row.steps >= after_; }
  // Steps of all ranks together: a sum over rows divided by it is the mean of a rank's step.
  double rank_steps() const { return static_cast<double>(rank_steps_); }
  // Of a rank.
  double steps() const { return rank_steps() / static_cast<double>(ranks_.size()); }

 private:
  int64_t after_;
  int64_t rank_steps_ = 0;
  std::set<int64_t> ranks_;
  std::set<std::pair<int64_t, int64_t>> windows_;
};

}  // namespace qstep::trainer::report
