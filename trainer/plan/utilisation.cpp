#include "trainer/plan/utilisation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qstep::trainer {

namespace {

double at_rate(double amount, double rate) {
  if (amount == 0) return 0;
  return rate > 0 ? amount / rate : std::numeric_limits<double>::quiet_NaN();
}

// NaN where one of them is.
double longer(double a, double b) { return std::isnan(a) ? a : std::isnan(b) ? b : std::max(a, b); }

}  // namespace

LeastTime least_time(const StepWork& work, const MachineModel& machine) {
  const auto matrix_s = [&](double flops, ProductFormat format) {
    return at_rate(flops, machine.product(format).peak);
  };
  const auto memory_s = [&](double bytes) { return at_rate(bytes, machine.memory.peak); };
  LeastTime least{.causal_flops = work.causal_flops,
                  .full_flops = work.full_flops,
                  .recomputed_flops = work.attention_forward_flops / 2};
  double blocks = 0;
  for (const ProductWork& p : work.products) {
    const RunsAs runs = runs_as(machine, p.left, p.right, work.compute);
    const double bytes = product_bytes(p, work.element_bytes, runs.emulated);
    least.sol_mem_s += p.count * longer(matrix_s(p.flops(), runs.format), memory_s(bytes));
    if (p.op == "head") continue;
    blocks += p.count * p.flops();
    least.flops[static_cast<size_t>(runs.format)] += p.count * p.flops();
  }
  // The vocabulary's padding is no model flop, so the head is counted by the model's formula.
  least.flops[static_cast<size_t>(work.compute)] += work.causal_flops - blocks;
  for (size_t x = 0; x < least.flops.size(); ++x) {
    least.sol_s += matrix_s(least.flops[x], static_cast<ProductFormat>(x));
  }
  least.sol_mem_s += longer(matrix_s(work.attention_forward_flops, work.compute),
                            memory_s(work.attention_forward_bytes));
  least.sol_mem_s += longer(matrix_s(work.attention_backward_flops, work.compute),
                            memory_s(work.attention_backward_bytes));
  for (const QuantizeWork& q : work.quantizations) {
    const PassBytes bytes = quantize_bytes(q, machine, work.compute);
    least.sol_mem_s += memory_s(q.count * (bytes.read + bytes.written));
  }
  for (const MemoryWork& pass : work.passes) least.sol_mem_s += memory_s(pass.bytes);
  least.bf16_s = matrix_s(least.causal_flops, ProductFormat::kBf16);
  least.full_bf16_s = matrix_s(least.full_flops, ProductFormat::kBf16);
  least.hardware_s = matrix_s(least.causal_flops + least.recomputed_flops, ProductFormat::kBf16);
  return least;
}

Utilisation utilisation(const LeastTime& least, double step_s) {
  return {.causal_flops_per_s = least.causal_flops / step_s,
          .full_flops_per_s = least.full_flops / step_s,
          .mfu_bf16 = least.bf16_s / step_s,
          .mfu_bf16_full = least.full_bf16_s / step_s,
          .hfu = least.hardware_s / step_s,
          .sol = least.sol_s / step_s,
          .sol_mem = least.sol_mem_s / step_s};
}

RunLeastTimes::RunLeastTimes(const Config& config, int n_ranks, const MachineModel& machine)
    : plan_(plan_precision(config)) {
  for (const PrecisionPhase& phase : plan_.phases) {
    phases_.push_back(least_time(step_work(config, n_ranks, phase), machine));
  }
}

const LeastTime& RunLeastTimes::at(int64_t step) const { return phases_[plan_.phase_at(step)]; }

}  // namespace qstep::trainer
