// Losses of a checkpoint's model, a micro-batch at a time.
#pragma once

#include <memory>

#include "trainer/inference/loaded_model.h"
#include "trainer/model/model.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

class Evaluator {
 public:
  // In the run's micro-batches: train.micro_batch sequences of train.seq_len. `loaded`, for
  // Passes::kMicroBatches, and `ops` outlive this.
  Evaluator(ops::Ops& ops, const LoadedModel& loaded);

  // Mean over the targets, nats: with the bits of the run's own evaluations on such a backend.
  // Scratch memory of the operations grows in the first one.
  float loss(const MicroBatch& batch);

 private:
  ops::Ops& ops_;
  MemoryUse use_;
  std::vector<MemoryRow> memory_;  // the weights' as well
  ops::Buffer buffer_;
  std::unique_ptr<ModelPrecision> precision_;
  std::unique_ptr<Model> model_;
  ops::Tensor loss_;  // [1]
};

}  // namespace qstep::trainer
