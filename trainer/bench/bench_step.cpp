#include "trainer/bench/bench_step.h"

namespace qstep::trainer {

namespace {

// Ranks that share layers have the same micro-batches, others have none in common.
int64_t first_batch(const Trainer& trainer) {
  constexpr int64_t kApart = int64_t{1} << 20;
  return kApart * trainer.groups().mesh().data_rank(trainer.groups().hosts().world().rank());
}

}  // namespace

StepBench::StepBench(const Config& config, parallel::Comm& world)
    : backend_(config.run.device, world),
      trainer_(backend_.ops(), config, backend_.worlds()),
      batches_(config, first_batch(trainer_)) {}

StepResult StepBench::step() {
  ++steps_;
  return trainer_.step(batches_, trainer_.config().optimizer.lr, steps_);
}

void StepBench::warm_up() { step(); }

double StepBench::time() {
  const StepResult r = step();
  step_ms_.push_back(total_ms(r.phases_ms));
  if (r.host_ms) host_ms_.push_back(*r.host_ms);
  for (size_t i = 0; i < phase_ms_.size(); ++i) phase_ms_[i].push_back(r.phases_ms[i]);
  return step_ms_.back();
}

BenchStepResult StepBench::result() const {
  const Config& config = trainer_.config();
  BenchStepResult result;
  result.step_ms = quantile(step_ms_, 0.5);
  for (size_t i = 0; i < phase_ms_.size(); ++i) result.phases_ms[i] = quantile(phase_ms_[i], 0.5);
  const auto tokens = static_cast<double>(config.train.global_batch * config.train.seq_len);
  if (!host_ms_.empty()) result.host_ms = quantile(host_ms_, 0.5);
  result.tokens_per_s = tokens / (result.step_ms * 1e-3);
  return result;
}

}  // namespace qstep::trainer
