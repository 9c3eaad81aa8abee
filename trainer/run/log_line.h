// The line that a run prints for an interval of steps: ASCII, fields behind " | " in a fixed order,
// each beginning with its key, n/a for what is not known.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "trainer/base/outlier_score.h"
#include "trainer/run/metrics.h"

namespace qstep::trainer {

// Means over the interval but for step, lr, memory and the counts, which are those of its last
// step. NaN: not known. The mean of losses with a NaN among them is one.
struct LogLine {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  int64_t step = 0, steps = 0;  // of how many
  double loss = 0, loss_z = kUnknown, grad_norm = 0, grad_norm_z = kUnknown, lr = 0;
  double step_ms = 0, p50_ms = 0, p95_ms = 0;
  double tokens_per_s = 0;  // of a rank, as are the next three, at step_ms
  double tflops_causal = 0, mfu_bf16 = kUnknown, sol = kUnknown;
  double comm_exposed_ms = kUnknown, data_wait_ms = 0;
  int64_t memory_bytes = 0, memory_total_bytes = 0;  // largest so far; what there is
  std::string recipe = {}, runs = {};                // "nvfp4", "emulated"
  int64_t skipped = 0, not_finite = 0;               // updates; steps with such a loss or gradient
  double left_s = 0;                                 // of the run
};
std::string log_line(const LogLine& line);

// Adds up the steps of an interval.
class LogInterval {
 public:
  void add(const StepRow& row);
  int64_t steps() const { return static_cast<int64_t>(step_ms_.size()); }
  // What the steps say of it, at least one, and begins the next.
  LogLine take(int64_t ranks);

 private:
  StepRow last_;
  std::vector<double> step_ms_;
  double loss_ = 0, loss_z_ = 0, grad_norm_ = 0, grad_norm_z_ = 0, comm_exposed_ms_ = 0,
         data_ms_ = 0;
  int64_t not_finite_ = 0;  // of all intervals
  OutlierScore loss_score_, norm_score_;
};

}  // namespace qstep::trainer
