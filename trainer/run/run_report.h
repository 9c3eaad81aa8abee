// What a training run prints: a header, a line per step, evaluations, checkpoints, a summary.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/run/log_line.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

class RunReport {
 public:
  RunReport(const Config& config, const data::StoreInfo& data, int n_ranks, bool emulated);

  // backend: backend_text.
  void header(const std::vector<MemoryRow>& memory, int64_t windows_per_epoch,
              std::string_view backend);
  // What the steps will be held against.
  void peaks(const MachineModel& machine);
  void resumed(const std::string& path, int64_t step, const std::string& note);
  void begin(int64_t step);  // the loop starts behind this step
  // Prints every run.log_every steps, and always the first three.
  void step(const StepRow& row, int64_t skipped_steps);
  // Where a quantizer met a NaN or an infinity: FP4 has neither, so that the loss may not show it.
  void non_finite(int64_t step, const std::string& input);
  void eval(const EvalRow& row);
  void saved(const CheckpointRow& row);
  void summary(const CheckpointState& state, const std::string& checkpoint, bool finished);

 private:
  using Clock = std::chrono::steady_clock;

  Config config_;
  data::StoreInfo data_;
  int n_ranks_;
  std::string_view runs_;  // "native" or "emulated"
  Clock::time_point start_;
  int64_t first_step_ = 0;
  std::vector<double> step_ms_;  // of the last steps, a ring
  int64_t n_steps_ = 0;
  float first_loss_ = 0, last_loss_ = 0;
  double last_eval_ = 0;
  LogInterval interval_;  // since the last printed line
  int64_t memory_total_bytes_;
  StepRow last_;
  PhaseTimes phases_ms_{};
};

}  // namespace qstep::trainer
