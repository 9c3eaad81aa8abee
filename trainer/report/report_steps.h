// Which steps of a run its statistics are about. A step is left out for what happened in it, never
// for the time that it took.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/report/report_run.h"

namespace qstep::trainer::report {

struct TaggedStep {
  size_t at;  // in Run::steps
  std::vector<std::string> tags;
};

struct StepChoice {
  // The first steps of the run: 10, or a fifth of them where that is less.
  size_t n_warm_up = 0;
  int64_t last_warm_up_step = 0;  // 0: none
  // Behind them. "checkpoint" and "evaluation": the step after one, which begins at the end of the
  // update before it; "resume": the first one of a later start; "skipped"; and
  // what the run itself wrote into `tags`.
  std::vector<TaggedStep> tagged;
  std::vector<size_t> measured;  // all others, indices of Run::steps
};

StepChoice choose_steps(const Run& run);

// What statistics run over: the measured steps, or, where every step is tagged, all behind warm-up.
std::vector<size_t> steps_to_use(const Run& run, const StepChoice& choice);

// step_ms of these steps.
std::vector<double> step_times(const Run& run, const std::vector<size_t>& steps);

}  // namespace qstep::trainer::report
