#include "trainer/timeline.h"

#include <numeric>

namespace qstep::trainer {

void PhaseTimer::start() {
  ms_.fill(0.0);
  open_ = Phase::kOther;
  since_ = Clock::now();
}

Phase PhaseTimer::enter(Phase phase) {
  const Phase before = open_;
  if (phase == before) return before;
  close();
  open_ = phase;
  return before;
}

const PhaseTimes& PhaseTimer::stop() {
  close();
  return ms_;
}

void PhaseTimer::close() {
  const Clock::time_point now = Clock::now();
  ms_[static_cast<size_t>(open_)] +=
      std::chrono::duration<double, std::milli>(now - since_).count();
  since_ = now;
}

double total_ms(const PhaseTimes& times) {
  return std::accumulate(times.begin(), times.end(), 0.0);
}

}  // namespace qstep::trainer
