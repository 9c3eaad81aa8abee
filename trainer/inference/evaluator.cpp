#include "trainer/inference/evaluator.h"

namespace qstep::trainer {

namespace {

struct Layout {
  ModelActivations activations;
  PrecisionTensors precision;
  ops::Tensor loss;
};

Layout lay_out(ops::Arena& arena, const LoadedModel& loaded) {
  const Config& c = loaded.config();
  const int64_t B = c.train.micro_batch, T = c.train.seq_len;
  return {.activations =
              lay_out_activations(arena, c.model, B, T, c.compute_dtype(), Purpose::kEvaluation),
          .precision = loaded.lay_out_precision(arena, B * T),
          .loss = arena.take("loss", ops::Dtype::kF32, 1, 1)};
}

}  // namespace

Evaluator::Evaluator(ops::Ops& ops, const LoadedModel& loaded)
    : ops_(ops), use_(loaded.memory_use()) {
  ops::Arena measure;
  lay_out(measure, loaded);
  memory_ = joined_rows(memory_rows(measure), loaded.memory());
  buffer_ = naming_owners([&] { return ops.allocate(measure.peak_bytes()); },
                          [&] { return memory_; }, use_);
  ops::Arena place(buffer_);
  Layout layout = lay_out(place, loaded);
  loss_ = layout.loss;
  precision_ = loaded.precision(std::move(layout.precision));
  const Config& c = loaded.config();
  model_ = std::make_unique<Model>(ops, c.model, loaded.weights(), layout.activations,
                                   c.train.micro_batch, c.train.seq_len, precision_.get());
}

float Evaluator::loss(const MicroBatch& batch) {
  float host = 0;
  naming_owners(
      [&] {
        ops_.upload(model_->activations().tokens, batch.tokens.data());
        ops_.upload(model_->activations().targets, batch.targets.data());
        model_->forward(ops_);
        ops_.mean(loss_, model_->activations().losses);
        ops_.download(&host, loss_);
      },
      [&] { return memory_; }, use_);
  return host;
}

}  // namespace qstep::trainer
