#include "trainer/report/report_steps.h"

#include <algorithm>
#include <set>

namespace qstep::trainer::report {

StepChoice choose_steps(const Run& run) {
  constexpr size_t kWarmUp = 10;
  StepChoice choice;
  choice.n_warm_up = std::min(kWarmUp, run.steps.size() / 5);
  if (choice.n_warm_up > 0) choice.last_warm_up_step = run.steps[choice.n_warm_up - 1].step;

  std::set<int64_t> after_save, after_evaluation, resumed;
  for (const Save& save : run.saves) after_save.insert(save.step + 1);
  for (const Evaluation& e : run.evaluations) after_evaluation.insert(e.step + 1);
  for (const Start& start : run.starts) {
    if (start.step > 1) resumed.insert(start.step);
  }
  for (size_t i = choice.n_warm_up; i < run.steps.size(); ++i) {
    const Step& step = run.steps[i];
    std::vector<std::string> tags;
    if (after_save.contains(step.step)) tags.emplace_back("checkpoint");
    if (after_evaluation.contains(step.step)) tags.emplace_back("evaluation");
    if (resumed.contains(step.step)) tags.emplace_back("resume");
    if (step.skipped) tags.emplace_back("skipped");
    for (const std::string& tag : step.tags) {
      if (std::find(tags.begin(), tags.end(), tag) == tags.end()) tags.push_back(tag);
    }
    if (tags.empty()) {
      choice.measured.push_back(i);
    } else {
      choice.tagged.push_back({i, std::move(tags)});
    }
  }
  return choice;
}

std::vector<size_t> steps_to_use(const Run& run, const StepChoice& choice) {
  if (!choice.measured.empty()) return choice.measured;
  std::vector<size_t> all;
  for (size_t i = choice.n_warm_up; i < run.steps.size(); ++i) all.push_back(i);
  return all;
}

std::vector<double> step_times(const Run& run, const std::vector<size_t>& steps) {
  std::vector<double> times;
  times.reserve(steps.size());
  for (const size_t i : steps) times.push_back(run.steps[i].step_ms);
  return times;
}

}  // namespace qstep::trainer::report
