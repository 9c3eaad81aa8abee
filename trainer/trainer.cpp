#include "trainer/trainer.h"

#include <algorithm>
#include <cmath>

namespace qstep::trainer {

using ops::Dtype;
using ops::Tensor;

struct Trainer::Layout {
  Parameters parameters;
  std::vector<ParameterGroup> gradients;
  ModelActivations activations;
  PrecisionTensors precision;
  Tensor micro_losses, scalars;
};

Trainer::Layout Trainer::lay_out(ops::Arena& arena, const Config& c) {
  const int64_t G = c.train.micros_per_step();
  return {.parameters = lay_out_parameters(arena, c.model, c.compute_dtype()),
          .gradients = GradientSum::lay_out(arena, c.model, c.parallel.reduction, G),
          .activations = lay_out_activations(arena, c.model, c.train.micro_batch, c.train.seq_len,
                                             c.compute_dtype(), Purpose::kTraining),
          .precision =
              PrecisionTensors::lay_out(arena, plan_precision(c), c.model,
                                        c.train.micro_batch * c.train.seq_len, Purpose::kTraining),
          .micro_losses = arena.take("batch", Dtype::kF32, 1, G),
          .scalars = arena.take("batch", Dtype::kF32, 1, 3)};
}

std::vector<MemoryRow> training_memory(const Config& config) {
  ops::Arena measure;
  Trainer::lay_out(measure, config);
  std::vector<MemoryRow> rows;
  for (const auto& [owner, bytes] : measure.bytes_by_owner()) rows.push_back({owner, bytes});
  std::stable_sort(rows.begin(), rows.end(),
                   [](const MemoryRow& a, const MemoryRow& b) { return a.bytes > b.bytes; });
  return rows;
}

Trainer::Trainer(ops::Ops& ops, const Config& config) : ops_(ops), config_(config) {
  ops::Arena measure;
  lay_out(measure, config);
  buffer_ = ops.allocate(measure.peak_bytes());
  ops::Arena place(buffer_);
  Layout layout = lay_out(place, config);

  parameters_ = std::move(layout.parameters);
  decay_stretches_ = decay_stretches(config.model, parameters_.master);
  micro_losses_ = layout.micro_losses;
  scalars_ = layout.scalars;
  gradient_sum_ = std::make_unique<GradientSum>(
      std::move(layout.gradients), config.parallel.reduction, config.train.micros_per_step());
  precision_ = std::make_unique<ModelPrecision>(ops, plan_precision(config),
                                                std::move(layout.precision), config.train.seed);
  model_ =
      std::make_unique<Model>(ops, config.model, parameters_.weight.views, layout.activations,
                              config.train.micro_batch, config.train.seq_len, precision_.get());
  init_parameters(ops, config.model, parameters_, config.train.seed);
}

void Trainer::upload(const MicroBatch& batch) {
  const ModelActivations& a = model_->activations();
  ops_.upload(a.tokens, batch.tokens.data());
  ops_.upload(a.targets, batch.targets.data());
}

StepResult Trainer::step(BatchSource& batches, double lr, int64_t update) {
  const int64_t G = config_.train.micros_per_step();
  const int64_t tokens_per_step = config_.train.global_batch * config_.train.seq_len;
  const float loss_scale = 1.0f / static_cast<float>(tokens_per_step);
  const Tensor& losses = model_->activations().losses;

  timer_.start();
  precision_->begin_step(ops_, steps_done_ + 1, ledger_);
  for (int64_t micro = 0; micro < G; ++micro) {
    timer_.enter(Phase::kData);
    upload(batches.next());
    precision_->begin_micro_batch(micro);
    const GradientSum::Target target = gradient_sum_->target(micro);
    model_->forward_backward(ops_, target.group.views, loss_scale, target.accumulate, timer_);
    ops_.mean(micro_losses_.col_range(micro, 1), losses);
    gradient_sum_->finished(ops_, micro);
  }

  timer_.enter(Phase::kOptimizer);
  const Tensor loss = scalars_.col_range(0, 1), norm = scalars_.col_range(1, 1),
               factor = scalars_.col_range(2, 1);
  ParameterGroup& grads = gradient_sum_->total();
  ops_.mean(loss, micro_losses_);
  ops_.grad_norm(norm, grads.flat);
  ops_.clip_factor(factor, norm, loss, static_cast<float>(config_.optimizer.clip_norm));
  adamw_update(ops_, decay_stretches_, parameters_, grads, factor, config_.optimizer, lr, update);

  timer_.enter(Phase::kOther);
  float host[3];
  ops_.download(host, scalars_);
  const bool skipped = std::isnan(host[2]);
  precision_->end_step(ops_, skipped);
  ++steps_done_;
  return {.loss = host[0],
          .grad_norm = host[1],
          .skipped = skipped,
          .non_finite_input = precision_->first_non_finite(ops_),
          .phases_ms = timer_.stop()};
}

float Trainer::evaluate(const MicroBatch& batch) {
  precision_->begin_evaluation(std::max<int64_t>(1, steps_done_), config_.precision.eval);
  upload(batch);
  model_->forward(ops_);
  const Tensor loss = scalars_.col_range(0, 1);
  ops_.mean(loss, model_->activations().losses);
  float host = 0;
  ops_.download(&host, loss);
  return host;
}

void Trainer::set_steps_done(int64_t steps) {
  steps_done_ = steps;
  precision_->restored(ops_, steps);
}

void Trainer::refresh_weights() {
  if (parameters_.weight.flat.dtype != Dtype::kF32) {
    ops_.cast(parameters_.weight.flat, parameters_.master.flat);
  }
  precision_->weights_changed();
}

}  // namespace qstep::trainer
