// Where micro-batches come from: a token store, read ahead on a thread of its own, or a random
// number generator.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "data/prefetcher.h"
#include "parallel/shards.h"
#include "trainer/config/config.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

// Of a store: from step `first_step` (counted from 0) on, micro-batches `micros` of every step. The
// loader outlives it.
class PrefetchedBatches final : public BatchSource {
 public:
  PrefetchedBatches(const data::Loader& loader, int64_t first_step, parallel::Range micros,
                    std::function<void(const data::BatchRead&)> on_read = {})
      : prefetcher_(loader, {.start_step = first_step,
                             .micro_begin = micros.begin,
                             .micro_end = micros.end,
                             .on_read = std::move(on_read)}) {}
  MicroBatch next() override {
    const data::Batch& batch = prefetcher_.next();
    return {batch.tokens, batch.targets};
  }

 private:
  data::Prefetcher prefetcher_;
};

// Synthetic tokens: a function of the configuration's seed and the number of the batch, uniform
// over the vocabulary, so that embedding rows and targets are as scattered as they can be.
class RandomBatches final : public BatchSource {
 public:
  explicit RandomBatches(const Config& config, int64_t first_batch = 0);
  MicroBatch next() override;

 private:
  uint64_t seed_;
  uint32_t vocab_size_;
  uint32_t batch_;
  std::vector<int32_t> tokens_, targets_;
};

}  // namespace qstep::trainer
