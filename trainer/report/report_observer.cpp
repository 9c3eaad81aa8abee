// What a run's timeline cost the run.
#include "trainer/report/report_sections.h"
#include "trainer/report/report_windows.h"

namespace qstep::trainer::report {

// The cost of noting a call, which every start measures, times the calls of a step. It leaves out
// what notes do to caches; an A/B measurement with timing.level = off has that too.
Json observer_section(const Run& run, const StepChoice& choice) {
  double note_ns = kMissing;  // the slowest rank's
  for (const RankStart& start : run.rank_starts) {
    if (!(note_ns >= start.note_ns)) note_ns = start.note_ns;
  }
  if (std::isnan(note_ns)) {
    return missing("timing.level was off, or the run is of an older qstep");
  }
  const WindowChoice windows(run.phases, choice);
  double calls = 0;
  for (const PhaseSum& row : run.phases) {
    if (windows.contains(row)) calls += static_cast<double>(row.calls);
  }
  if (run.phases.empty() || choice.measured.empty()) return missing("no step was measured");
  calls /= windows.rank_steps();
  const double cost_ms = calls * note_ns * 1e-6;
  const double step_ms = median(step_times(run, choice.measured));
  constexpr double kBound = 0.005;
  return {
      {"available", true},
      {"method", "cost of a note, measured at the start, times the notes of a step"},
      {"note_ns", note_ns},
      {"notes_per_step", calls},
      {"cost_ms", cost_ms},
      {"share", cost_ms / step_ms},
      {"bound", kBound},
      {"within_bound", cost_ms / step_ms < kBound},
      {"off_and_on",
       missing("qstep compare --observer measures steps with timing.level off and on in turn")}};
}

}  // namespace qstep::trainer::report
