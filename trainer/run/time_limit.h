// When a run has to be over, and how much earlier it must begin to save.
#pragma once

#include <algorithm>
#include <chrono>
#include <limits>

namespace qstep::trainer {

class TimeLimit {
 public:
  using Clock = std::chrono::steady_clock;

  // The earlier of two ends: `max_minutes` from now (0: none), and the batch job's, in seconds
  // since 1970 as Slurm's SLURM_JOB_END_TIME has it (null, or no number: none).
  TimeLimit(double max_minutes, const char* job_end_time);

  bool exists() const { return left_at_start_s_ < std::numeric_limits<double>::infinity(); }
  // Seconds until then.
  double left_s() const;

  // A measured duration. The longest step includes the evaluation behind it.
  void step_took(double seconds) { longest_step_s_ = std::max(longest_step_s_, seconds); }
  void save_took(double seconds) { longest_save_s_ = std::max(longest_save_s_, seconds); }
  // What a save is taken for until one was measured: `bytes` at 100 MB/s, and a second.
  void expect_save_of(double bytes) { longest_save_s_ = 1 + bytes / 100e6; }

  // Whether another step could leave too little time for a save that takes three times the longest
  // one so far.
  bool reached() const {
    return exists() && left_s() < longest_step_s_ + kSaveMargin * longest_save_s_;
  }

 private:
  static constexpr double kSaveMargin = 3;  // file systems have bad days

  Clock::time_point start_ = Clock::now();
  double left_at_start_s_ = std::numeric_limits<double>::infinity();
  double longest_step_s_ = 0, longest_save_s_ = 0;
};

}  // namespace qstep::trainer
