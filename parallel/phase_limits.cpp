#include "parallel/phase_limits.h"

#include <algorithm>

namespace qstep::parallel {

namespace {

constexpr int64_t kKeptSteps = 256;

double percentile_99(std::vector<double> values) {
  const auto nth = static_cast<std::ptrdiff_t>((values.size() - 1) * 99 / 100);
  std::nth_element(values.begin(), values.begin() + nth, values.end());
  return values[static_cast<size_t>(nth)];
}

}  // namespace

std::string_view name(Phase phase) {
  constexpr std::array<std::string_view, kPhases> kNames = {"start", "step", "evaluation", "save",
                                                            "end"};
  return kNames[static_cast<size_t>(phase)];
}

void PhaseClock::measure(double seconds) {
  double& longest_s = longest_s_[static_cast<size_t>(phase_)];
  longest_s = std::max(longest_s, seconds);
  if (phase_ != Phase::kStep || ++n_steps_ == 1) return;  // the first one warms up
  if (std::ssize(steps_s_) < kKeptSteps) {
    steps_s_.push_back(seconds);
  } else {
    steps_s_[static_cast<size_t>(n_steps_ % kKeptSteps)] = seconds;
  }
}

double PhaseClock::find_limit_s(Phase phase) const {
  const double longest_s = longest_s_[static_cast<size_t>(phase)];
  switch (phase) {
    case Phase::kStart:
      return limits_.start_s;
    case Phase::kStep:
      if (n_steps_ == 0) return limits_.first_step_s;
      if (steps_s_.empty()) return limits_.step_s;
      return std::max(limits_.step_s, limits_.step_factor * percentile_99(steps_s_));
    case Phase::kEvaluation:
      return std::max(limits_.evaluation_s, limits_.longest_factor * longest_s);
    case Phase::kSave:
      return std::max(limits_.save_s, limits_.longest_factor * longest_s);
    case Phase::kEnd:
      return limits_.end_s;
  }
  return limits_.step_s;
}

void PhaseClock::enter(Phase phase, int64_t step, double now_s) {
  measure(now_s - entered_s_);
  phase_ = phase;
  step_ = step;
  entered_s_ = now_s;
  limit_s_ = find_limit_s(phase);
}

}  // namespace qstep::parallel
