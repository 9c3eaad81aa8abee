// How well a step uses its machine, as shares with a name: MFU, HFU, SOL, sol_mem, and the most
// that a recipe can gain. The one place with these formulas: qstep plan, train, bench and report
// ask it.
#pragma once

#include <array>
#include <vector>

#include "trainer/plan/step_work.h"

namespace qstep::trainer {

// What a rank has to do in a step, and the least time that takes it at the peaks of its machine.
// Each of fprop, dgrad and wgrad counts in the format that really runs: an emulated one is decoded
// and multiplied in the compute type. NaN where the machine has no such peak.
struct LeastTime {
  // F: the model's flops (flops_per_token) on this rank, attention over the causal triangle.
  double causal_flops = 0;
  double full_flops = 0;  // the same with attention over the whole square
  // What is computed a second time: the scores, by the backward pass of attention (a sixth of
  // attention's F). Nothing else is recomputed.
  double recomputed_flops = 0;
  std::array<double, kProductFormatNames.size()> flops{};  // F by the format that runs
  double bf16_s = 0;                                       // F / P_bf16
  double full_bf16_s = 0;
  double hardware_s = 0;  // (F + recomputed) / P_bf16
  double sol_s = 0;       // sum over formats x of F_x / P_x
  // Sum over operations of max(F_op / P, bytes_op / bandwidth): GEMMs, attention, quantizers and
  // passes over memory, each reading and writing all that it needs once. Decoding of emulated
  // operands and communication are not necessary work. A bound only where caches hold nothing
  // between operations.
  double sol_mem_s = 0;

  // How many times faster than in BF16 the products alone allow a step to be.
  double largest_gain() const { return bf16_s / sol_s; }
};
LeastTime least_time(const StepWork& work, const MachineModel& machine);

// Of a step that took step_s; NaN where a peak is missing.
struct Utilisation {
  double causal_flops_per_s = 0, full_flops_per_s = 0;  // of a rank: F / t
  double mfu_bf16 = 0;                                  // F / (t P_bf16)
  double mfu_bf16_full = 0;                             // with attention counted in full
  double hfu = 0;                                       // (F + recomputed) / (t P_bf16)
  double sol = 0;                                       // sol_s / t: at most 1
  double sol_mem = 0;                                   // sol_mem_s / t
};
Utilisation utilisation(const LeastTime& least, double step_s);

// The least time of each step of a run, whose recipe may change its formats on the way.
class RunLeastTimes {
 public:
  RunLeastTimes(const Config& config, int n_ranks, const MachineModel& machine);

  const LeastTime& at(int64_t step) const;

 private:
  PrecisionPlan plan_;
  std::vector<LeastTime> phases_;  // of the plan
};

}  // namespace qstep::trainer
