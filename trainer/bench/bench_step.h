// The time of whole training steps on synthetic tokens, one precision recipe at a time.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "trainer/backend/rank_backend.h"
#include "trainer/base/bootstrap.h"
#include "trainer/config/config.h"
#include "trainer/step/batch_sources.h"
#include "trainer/step/trainer.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

struct BenchStepResult {
  double step_ms = 0;       // median
  PhaseTimes phases_ms{};   // medians, each of its own
  double tokens_per_s = 0;  // at the median
  // Median of what the host itself did in a step (Timeline::host_ms).
  std::optional<double> host_ms;
};

// A trainer whose steps on synthetic tokens are timed when asked for. Ranks of several make the
// same calls; times are this rank's, rates those of all ranks together.
class StepBench {
 public:
  // One of the ranks `world`, which outlives it, on the device that configs_on_ranks chose.
  StepBench(const Config& config, parallel::Comm& world);

  // One more step, not counted.
  void warm_up();
  // One more step, counted; its time in ms.
  double time();
  // Of the steps that were counted, at least one.
  BenchStepResult result() const;

  Trainer& trainer() { return trainer_; }
  std::string_view device() const { return backend_.ops().name(); }

 private:
  StepResult step();

  RankBackend backend_;
  Trainer trainer_;
  RandomBatches batches_;
  int64_t steps_ = 0;
  std::vector<double> step_ms_, host_ms_;
  std::array<std::vector<double>, kPhaseNames.size()> phase_ms_;
};

}  // namespace qstep::trainer
