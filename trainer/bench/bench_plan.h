// How far qstep plan --gpu cpu is from this processor: predicted against measured steps of models
// of unlike shapes. What the prediction is made of and the steps are measured in turn, in one
// process, so that whatever else the machine does slows both.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trainer/bench/bench_workload.h"

namespace qstep::trainer {

struct PlanCase {
  std::string name;
  BenchWorkload workload;
};
// Six models: GPT-2- and Llama-like, narrow and deep, wide and shallow, with short and long
// sequences.
const std::vector<PlanCase>& plan_cases();

struct PlanRow {
  std::string name, precision;
  double predicted_ms = 0, measured_ms = 0;  // medians over the rounds
  struct Phase {
    double predicted_ms = 0, measured_ms = 0;
  };
  std::map<std::string, Phase> phases;  // of step_time_report.md section 3.2

  double error() const { return predicted_ms / measured_ms - 1; }
};

// `rounds` of a probe (cpu_costs.h) and a step each, behind two steps to warm up.
PlanRow bench_plan(const PlanCase& shape, const std::string& precision, int64_t rounds);

}  // namespace qstep::trainer
