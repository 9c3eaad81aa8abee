// How long a rank may stay in each phase of a run. Limits of what repeats follow the times measured
// so far, above a floor.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace qstep::parallel {

enum class Phase : uint8_t { kStart, kStep, kEvaluation, kSave, kEnd };
inline constexpr size_t kPhases = 5;

std::string_view name(Phase phase);  // "start", "step", "evaluation", "save", "end"

struct PhaseLimits {
  double start_s = 600;
  double first_step_s = 300;  // the first step of a process, which also warms up
  double step_s = 60;         // floor of the steps after it
  double step_factor = 10;    // times the 99th percentile of the last 256 steps
  double evaluation_s = 600;  // floor
  double save_s = 600;        // floor
  double longest_factor = 5;  // of evaluations and saves: times the longest so far
  double end_s = 20;          // from a rank's goodbye to the last one's
};

// The phase of one rank and its limit. Times are seconds of one steady clock.
class PhaseClock {
 public:
  PhaseClock(const PhaseLimits& limits, double now_s)
      : limits_(limits), entered_s_(now_s), limit_s_(limits.start_s) {}

  // Ends and measures the present phase. Entering it again starts it anew.
  void enter(Phase phase, int64_t step, double now_s);
  // The process as a whole stood still for so long, which does not count.
  void pause(double seconds) { entered_s_ += seconds; }

  Phase phase() const { return phase_; }
  int64_t step() const { return step_; }
  double entered_s() const { return entered_s_; }
  double limit_s() const { return limit_s_; }

 private:
  void measure(double seconds);
  double find_limit_s(Phase phase) const;

  PhaseLimits limits_;
  Phase phase_ = Phase::kStart;
  int64_t step_ = 0;
  double entered_s_;
  double limit_s_;
  int64_t n_steps_ = 0;          // ended so far
  std::vector<double> steps_s_;  // the last of them but for the first, a ring
  std::array<double, kPhases> longest_s_{};
};

}  // namespace qstep::parallel
