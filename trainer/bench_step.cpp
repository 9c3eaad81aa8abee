#include "trainer/bench_step.h"

#include "precision/philox.h"

namespace qstep::trainer {

class StepBench::RandomBatches final : public BatchSource {
 public:
  explicit RandomBatches(const Config& c)
      : seed_(c.train.seed),
        vocab_size_(static_cast<uint32_t>(c.model.vocab_size)),
        tokens_(static_cast<size_t>(c.train.micro_batch * c.train.seq_len)),
        targets_(tokens_.size()) {}

  MicroBatch next() override {
    ++batch_;
    for (uint32_t i = 0; i < tokens_.size(); ++i) {
      const auto words = precision::philox4x32(seed_, {{i, batch_, 0, 0}});
      tokens_[i] = static_cast<int32_t>(words.w[0] % vocab_size_);
      targets_[i] = static_cast<int32_t>(words.w[1] % vocab_size_);
    }
    return {tokens_, targets_};
  }

 private:
  uint64_t seed_;
  uint32_t vocab_size_;
  uint32_t batch_ = 0;
  std::vector<int32_t> tokens_, targets_;
};

StepBench::StepBench(const Config& config)
    : trainer_(*ops_, config), batches_(std::make_unique<RandomBatches>(config)) {}

StepBench::~StepBench() = default;

StepResult StepBench::step() {
  ++steps_;
  return trainer_.step(*batches_, trainer_.config().optimizer.lr, steps_);
}

void StepBench::warm_up() { step(); }

double StepBench::time() {
  const StepResult r = step();
  step_ms_.push_back(total_ms(r.phases_ms));
  for (size_t i = 0; i < phase_ms_.size(); ++i) phase_ms_[i].push_back(r.phases_ms[i]);
  return step_ms_.back();
}

BenchStepResult StepBench::result() const {
  const Config& config = trainer_.config();
  BenchStepResult result;
  result.step_ms = quantile(step_ms_, 0.5);
  for (size_t i = 0; i < phase_ms_.size(); ++i) result.phases_ms[i] = quantile(phase_ms_[i], 0.5);
  const auto tokens = static_cast<double>(config.train.global_batch * config.train.seq_len);
  result.tokens_per_s = tokens / (result.step_ms * 1e-3);
  result.model_flops_per_s =
      result.tokens_per_s *
      flops_per_token(config.model, config.train.seq_len, AttentionCount::kCausal);
  return result;
}

}  // namespace qstep::trainer
