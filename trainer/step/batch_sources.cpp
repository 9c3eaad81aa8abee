#include "trainer/step/batch_sources.h"

#include "precision/philox.h"

namespace qstep::trainer {

RandomBatches::RandomBatches(const Config& config, int64_t first_batch)
    : seed_(config.train.seed),
      vocab_size_(static_cast<uint32_t>(config.model.vocab_size)),
      batch_(static_cast<uint32_t>(first_batch)),
      tokens_(static_cast<size_t>(config.train.micro_batch * config.train.seq_len)),
      targets_(tokens_.size()) {}

MicroBatch RandomBatches::next() {
  ++batch_;
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    const auto words = precision::philox4x32(seed_, {{i, batch_, 0, 0}});
    tokens_[i] = static_cast<int32_t>(words.w[0] % vocab_size_);
    targets_[i] = static_cast<int32_t>(words.w[1] % vocab_size_);
  }
  return {tokens_, targets_};
}

}  // namespace qstep::trainer
