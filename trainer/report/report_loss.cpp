// Loss of a run over its steps and tokens.
#include <algorithm>
#include <cmath>

#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

Json loss_section(const Run& run) {
  if (run.steps.empty()) return missing("no step was finished");
  std::vector<int64_t> steps;
  std::vector<double> losses, norms;
  int64_t n_skipped = 0, n_not_finite = 0;
  Json inputs = Json::array();
  for (const Step& step : run.steps) {
    steps.push_back(step.step);
    losses.push_back(step.loss);
    norms.push_back(step.grad_norm);
    n_skipped += step.skipped ? 1 : 0;
    n_not_finite += std::isfinite(step.loss) ? 0 : 1;
    constexpr size_t kListed = 20;
    if (!step.non_finite_input.empty() && inputs.size() < kListed) {
      inputs.push_back({{"step", step.step}, {"input", step.non_finite_input}});
    }
  }
  // One step's loss is as much its batch's as the model's.
  constexpr size_t kLast = 20;
  const size_t n_last = std::min(kLast, losses.size());
  double last_mean = 0;
  for (size_t i = losses.size() - n_last; i < losses.size(); ++i) {
    last_mean += losses[i] / static_cast<double>(n_last);
  }
  Json json = {{"available", true},
               {"unit", "nats"},
               {"first", number(losses.front())},
               {"last", number(losses.back())},
               {"n_last_mean", n_last},
               {"last_mean", number(last_mean)},
               {"tokens", run.steps.back().tokens_total},
               {"n_skipped", n_skipped},
               {"n_not_finite", n_not_finite},
               {"non_finite_inputs", inputs},
               {"curve", curve(steps, losses)},
               {"grad_norm_curve", curve(steps, norms)},
               {"tokens_per_step", run.steps.back().tokens}};
  if (run.evaluations.empty()) {
    json["validation"] = missing("the run was not evaluated (train.eval_every)");
    return json;
  }
  std::vector<int64_t> at;
  std::vector<double> values;
  for (const Evaluation& e : run.evaluations) {
    at.push_back(e.step);
    values.push_back(e.loss);
  }
  const Evaluation& last = run.evaluations.back();
  json["validation"] = {{"available", true},
                        {"precision", last.precision},
                        {"step", last.step},
                        {"last", number(last.loss)},
                        {"last_bits_per_byte", number(last.bits_per_byte)},
                        {"best", number(*std::min_element(values.begin(), values.end()))},
                        {"curve", curve(at, values)}};
  return json;
}

}  // namespace qstep::trainer::report
