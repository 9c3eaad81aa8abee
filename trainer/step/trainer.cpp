#include "trainer/step/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "trainer/config/rank_check.h"
#include "trainer/step/machine_memory.h"
#include "trainer/step/out_of_memory.h"
#include "trainer/step/replica_check.h"
#include "trainer/timing/labels.h"

namespace qstep::trainer {

using ops::Dtype;
using ops::Tensor;

namespace {

parallel::Comm& alone() {
  static const std::unique_ptr<parallel::Comm> single = parallel::make_single();
  return *single;
}

parallel::Mesh mesh_of(const Config& c, int n_ranks) {
  return parallel::make_mesh(n_ranks, static_cast<int>(c.parallel.tensor));
}

ShardPlan plan_of(const Config& c, const parallel::Mesh& mesh, int rank) {
  return plan_shards(c.model, c.parallel.optimizer, mesh.data, mesh.data_rank(rank),
                     {.size = mesh.tensor, .rank = mesh.tensor_rank(rank)});
}

const Worlds& checked(const Config& config, const Worlds& worlds) {
  require_ranks(config, worlds.hosts.size());
  return worlds;
}

}  // namespace

// Joins the model's passes with the sums over micro-batches and ranks.
class Trainer::Buckets final : public BucketObserver {
 public:
  Buckets(ops::Ops& ops, const ShardPlan& shards, GradientSum& sum, DataParallel& ranks,
          Timeline& timer, Recordings& recordings)
      : ops_(ops),
        shards_(shards),
        sum_(sum),
        ranks_(ranks),
        timer_(timer),
        recordings_(recordings) {}

  // Updated weights may still be on their way when the first of a step begins, or an evaluation.
  void begin_micro_batch(int64_t micro, bool last) {
    micro_ = micro;
    last_ = last;
  }
  void weights_wanted(int64_t bucket) override {
    if (!ranks_.gathers_weights() || micro_ > 0) return;
    recordings_.unrecorded([this, bucket] { ranks_.wait_for_weights(bucket, timer_); });
  }
  void gradient_complete(int64_t bucket) override {
    const Bucket& b = shards_.buckets[static_cast<size_t>(bucket)];
    ops_.label(-1, kGradientSumLabel);
    sum_.add_up(ops_, micro_, b.first, b.size);
    if (ranks_.size() == 1 || !last_) return;
    recordings_.unrecorded([this, bucket] { ranks_.reduce_gradient(bucket); });
  }

 private:
  ops::Ops& ops_;
  const ShardPlan& shards_;
  GradientSum& sum_;
  DataParallel& ranks_;
  Timeline& timer_;
  Recordings& recordings_;
  int64_t micro_ = 0;
  bool last_ = false;
};

struct Trainer::Layout {
  Parameters parameters;
  std::vector<ParameterGroup> gradients;
  ModelActivations activations;
  PrecisionTensors precision;
  Tensor staging, step_sums, scalars;
};

Trainer::Layout Trainer::lay_out(ops::Arena& arena, const Config& c, const ShardPlan& shards,
                                 int n_data_ranks, const NativeProducts& native) {
  const int64_t G = c.train.micros_per_step(), tensor = shards.tensor.size;
  return {.parameters = lay_out_parameters(arena, c.model, shards, c.compute_dtype()),
          .gradients =
              GradientSum::lay_out(arena, c.model, shards, c.parallel.reduction, G / n_data_ranks),
          .activations = lay_out_activations(arena, c.model, c.train.micro_batch, c.train.seq_len,
                                             c.compute_dtype(), Purpose::kTraining, tensor),
          .precision = PrecisionTensors::lay_out(
              arena, plan_precision(c), tensor_share(c.model, tensor),
              c.train.micro_batch * c.train.seq_len, Purpose::kTraining, native),
          .staging = lay_out_staging(arena, shards, c.parallel.gradients, n_data_ranks),
          .step_sums = arena.take("batch", Dtype::kF32, 1, G + shards.total / kShardUnit),
          .scalars = arena.take("batch", Dtype::kF32, 1, 3)};
}

std::vector<MemoryRow> training_memory(const Config& config, int n_ranks, int rank,
                                       const NativeProducts& native) {
  const parallel::Mesh mesh = mesh_of(config, n_ranks);
  ops::Arena measure;
  Trainer::lay_out(measure, config, plan_of(config, mesh, rank), mesh.data, native);
  return memory_rows(measure);
}

Trainer::Trainer(ops::Ops& ops, const Config& config) : Trainer(ops, config, alone()) {}

Trainer::Trainer(ops::Ops& ops, const Config& config, const Worlds& worlds)
    : timer_(config.timing.level, ops.clock()),
      ops_(config.timing.level == TimingLevel::kOps ? timed_ops_.emplace(ops, timer_) : ops),
      config_(config),
      recordings_(ops_, timer_, config.run.cuda_graphs),
      groups_(checked(config, worlds), static_cast<int>(config.parallel.tensor)),
      tensor_(groups_.devices().tensor() != nullptr
                  ? TensorParallel(*groups_.devices().tensor(), timer_, recordings_)
                  : TensorParallel()),
      shards_(plan_of(config, groups_.mesh(), worlds.hosts.rank())) {
  parallel::Comm& data = groups_.devices().data();
  ops::Arena measure;
  const NativeProducts native(ops, config.compute_dtype());
  lay_out(measure, config, shards_, data.size(), native);
  buffer_ =
      naming_owners([&] { return ops.allocate(measure.peak_bytes()); }, [&] { return memory(); });
  ops::Arena place(buffer_);
  Layout layout = lay_out(place, config, shards_, data.size(), native);

  parameters_ = std::move(layout.parameters);
  decay_stretches_ = decay_stretches(shards_);
  const int64_t G = config.train.micros_per_step();
  step_sums_ = layout.step_sums;
  micro_losses_ = step_sums_.col_range(0, G);
  square_sums_ = step_sums_.col_range(G, step_sums_.cols - G);
  scalars_ = layout.scalars;
  gradient_sum_ = std::make_unique<GradientSum>(std::move(layout.gradients),
                                                config.parallel.reduction, G / data.size());
  precision_ =
      std::make_unique<ModelPrecision>(ops, plan_precision(config), std::move(layout.precision),
                                       config.train.seed, config.model, tensor_);
  model_ = std::make_unique<Model>(ops, config.model, parameters_.weight.views, layout.activations,
                                   config.train.micro_batch, config.train.seq_len, precision_.get(),
                                   &tensor_);
  ParameterGroup& gradient = gradient_sum_->total();
  init_parameters(ops, shards_, parameters_, gradient, config.train.seed);
  ranks_ = std::make_unique<DataParallel>(ops_, data, shards_, config.parallel.optimizer,
                                          gradient.flat, parameters_.weight.flat, layout.staging);
  buckets_ = std::make_unique<Buckets>(ops_, shards_, *gradient_sum_, *ranks_, timer_, recordings_);
  model_->observe(buckets_.get());
}

Trainer::~Trainer() = default;

std::vector<MemoryRow> Trainer::memory() const {
  const parallel::Comm& world = groups_.hosts().world();
  return backend_memory(config_, ops_, world.size(), world.rank());
}

// A rank of a tensor group cannot tell a token of another rank from one that nobody has.
void Trainer::upload(const MicroBatch& batch) {
  ops::check(std::all_of(batch.tokens.begin(), batch.tokens.end(),
                         [V = config_.model.vocab_size](int32_t t) { return t >= 0 && t < V; }),
             "step: a token lies outside the vocabulary");
  const ModelActivations& a = model_->activations();
  ops_.upload(a.tokens, batch.tokens.data());
  ops_.upload(a.targets, batch.targets.data());
}

// Where the host waits for the device, it must hear of a rank that the device would wait for in
// vain.
void Trainer::download(std::span<const ops::HostCopy> copies) {
  groups_.devices().world().synchronize();
  ops_.download_all(copies);
}

// Of the weights that tensor parallelism does not cut every rank of a tensor group has a part of
// the gradient: of its own rows, or heads. They are summed behind the sum over micro-batches, whose
// bits must not depend on how those are spread.
void Trainer::sum_uncut_gradients() {
  if (tensor_.size() == 1) return;
  for (size_t bucket = 0; bucket < shards_.buckets.size(); ++bucket) {
    const Bucket& b = shards_.buckets[bucket];
    const OwnedRun& owned = shards_.owned[bucket];
    const int64_t first = std::max(owned.first, b.first + b.split_size);
    const int64_t end = owned.first + owned.size;
    if (first < end) tensor_.sum(gradient_sum_->total().flat.col_range(first, end - first));
  }
}

// Of this rank's part of every bucket, in the places of the whole gradient's chunks. What all ranks
// of a tensor group have is counted by the first of them.
void Trainer::sum_squares() {
  const auto rank = static_cast<size_t>(ranks_->rank());
  for (const Bucket& b : shards_.buckets) {
    const int64_t end = tensor_.rank() == 0 ? b.size : b.split_size;
    const int64_t first = b.first + b.bounds[rank];
    const int64_t n = b.first + std::min(b.bounds[rank + 1], end) - first;
    if (n <= 0) continue;
    ops_.square_sums(square_sums_.col_range(first / kShardUnit, n / kShardUnit),
                     gradient_sum_->total().flat.col_range(first, n));
  }
  tensor_.sum(square_sums_);
}

// A sum with zeros is exact: the joined values are those of the rank that has them.
void Trainer::join_ranks() {
  parallel::Comm& world = groups_.devices().world();
  if (world.size() == 1) return;
  parallel::Comm::Ticket last = ranks_->comm().all_reduce(step_sums_, parallel::Reduce::kSum);
  if (const Tensor& amaxes = precision_->amaxes()) {
    last = world.all_reduce(amaxes, parallel::Reduce::kMax);
  }
  if (const Tensor& counts = precision_->non_finite_counts()) {
    last = world.all_reduce(counts, parallel::Reduce::kSum);
  }
  timer_.wait(Category::kGradReduce, [&] { world.wait(last); });
}

// In the order of the next forward pass, which waits for each bucket as it comes to it.
void Trainer::update_weights(double lr, int64_t update) {
  const Tensor factor = scalars_.col_range(2, 1);
  for (size_t bucket = 0; bucket < shards_.buckets.size(); ++bucket) {
    adamw_update(ops_, decay_stretches_, shards_.owned[bucket], parameters_, gradient_sum_->total(),
                 factor, config_.optimizer, lr, update);
    ranks_->gather_weights(static_cast<int64_t>(bucket));
  }
}

// Forward and backward; the losses and the gradient are the device's once it is there.
void Trainer::compute_micro_batch(int64_t micro, int64_t n_micros, const ops::Moment& moment) {
  precision_->begin_micro_batch(static_cast<int64_t>(moment.micro_batch));
  const bool last = micro + 1 == n_micros;
  buckets_->begin_micro_batch(micro, last);
  const GradientSum::Target target = gradient_sum_->target(micro);
  const int64_t tokens_per_step = config_.train.global_batch * config_.train.seq_len;
  const float loss_scale = 1.0f / static_cast<float>(tokens_per_step);
  const auto compute = [&] {
    model_->forward_backward(ops_, target.group.views, loss_scale, target.accumulate, timer_);
  };
  if (ledger_ != nullptr) {
    compute();
  } else {
    recordings_.run({.part = RecordingKey::Part::kMicroBatch,
                     .phase = precision_->phase(),
                     .first = micro == 0,
                     .sends = last && ranks_->size() > 1,
                     .gradient_path = gradient_sum_->path(micro)},
                    moment, compute);
  }
  precision_->weights_made();
  gradient_sum_->finished(micro);
}

// In scalars_: loss, norm and the factor of the gradient.
void Trainer::clip_and_update(double lr, int64_t update) {
  const Tensor loss = scalars_.col_range(0, 1), norm = scalars_.col_range(1, 1),
               factor = scalars_.col_range(2, 1);
  ops_.label(-1, kClipLabel);
  sum_squares();
  join_ranks();
  ops_.mean(loss, micro_losses_);
  ops_.norm_of_sums(norm, square_sums_);
  ops_.clip_factor(factor, norm, loss, static_cast<float>(config_.optimizer.clip_norm));
  ops_.label(-1, kUpdateLabel);
  update_weights(lr, update);
}

StepResult Trainer::step(BatchSource& batches, double lr, int64_t update) {
  return naming_owners([&] { return make_step(batches, lr, update); }, [&] { return memory(); });
}

StepResult Trainer::make_step(BatchSource& batches, double lr, int64_t update) {
  const int64_t n_micros = config_.train.micros_per_step() / ranks_->size();
  const int64_t first_micro = n_micros * ranks_->rank();
  const Tensor& losses = model_->activations().losses;
  const parallel::CommTimes comm_before = ranks_->comm().times();

  ops::Moment moment{.step = static_cast<uint32_t>(steps_done_ + 1),
                     .micro_batch = 0,
                     .lr = static_cast<float>(lr),
                     .t = update};
  timer_.start(steps_done_ + 1);
  if (groups_.hosts().world().size() > 1) ops_.zero(step_sums_);
  precision_->begin_step(ops_, steps_done_ + 1, ledger_);
  for (int64_t micro = 0; micro < n_micros; ++micro) {
    timer_.enter(Phase::kData);
    MicroBatch batch;
    timer_.wait(Category::kDataWait, [&] { batch = batches.next(); });
    upload(batch);
    moment.micro_batch = static_cast<uint64_t>(first_micro + micro);
    compute_micro_batch(micro, n_micros, moment);
    ops_.mean(micro_losses_.col_range(first_micro + micro, 1), losses);
  }

  timer_.enter(Phase::kOptimizer);
  ranks_->wait_for_gradients(timer_);
  sum_uncut_gradients();
  if (groups_.hosts().world().size() > 1) {  // a call or two between any two messages
    clip_and_update(lr, update);
  } else {
    recordings_.run({.part = RecordingKey::Part::kUpdate}, moment,
                    [&] { clip_and_update(lr, update); });
  }
  precision_->end_step(ops_, scalars_.col_range(2, 1));
  ++steps_done_;

  timer_.enter(Phase::kOther);
  // The only time that the host waits for what it has handed over.
  std::array<float, 3> host{};
  const std::array copies{ops::HostCopy{host.data(), scalars_}, precision_->non_finite_copy()};
  timer_.stand_still(
      [&] { download(std::span(copies).first(precision_->non_finite_counts() ? 2 : 1)); });
  const PhaseTimes& phases_ms = timer_.stop();
  const parallel::CommTimes comm_after = ranks_->comm().times();
  return {.loss = host[0],
          .grad_norm = host[1],
          .skipped = std::isnan(host[2]),
          .non_finite_input = precision_->first_non_finite(),
          .phases_ms = phases_ms,
          .breakdown_ms =
              timed_ops_ ? std::optional(breakdown(timer_.spans(), timer_.step())) : std::nullopt,
          .host_ms = timer_.host_ms(),
          .comm_busy_ms = comm_after.busy_ms - comm_before.busy_ms,
          .comm_bytes = comm_after.bytes_sent - comm_before.bytes_sent};
}

float Trainer::evaluate(const MicroBatch& batch) {
  return naming_owners([&] { return loss_of(batch); }, [&] { return memory(); });
}

float Trainer::loss_of(const MicroBatch& batch) {
  precision_->begin_evaluation(std::max<int64_t>(1, steps_done_), config_.precision.eval);
  upload(batch);
  buckets_->begin_micro_batch(0, false);
  model_->forward(ops_);
  const Tensor loss = scalars_.col_range(0, 1);
  ops_.mean(loss, model_->activations().losses);
  float host = 0;
  download(std::array{ops::HostCopy{&host, loss}});
  return host;
}

void Trainer::set_steps_done(int64_t steps) {
  steps_done_ = steps;
  precision_->restored(ops_, steps);
}

void Trainer::check_replicas() {
  ranks_->wait_for_weights();
  groups_.devices().world().synchronize();
  ReplicaCheck(groups_, shards_, parameters_.weight.flat).run(ops_, steps_done_);
}

void Trainer::refresh_weights() {
  ranks_->wait_for_weights();  // those of the last update belong to whoever carries them
  const bool weight_is_master = parameters_.weight.flat.data == parameters_.master.flat.data;
  for (size_t bucket = 0; bucket < shards_.owned.size() && !weight_is_master; ++bucket) {
    const OwnedRun& run = shards_.owned[bucket];
    ops_.cast(parameters_.weight.flat.col_range(run.first, run.size),
              parameters_.master.flat.col_range(run.offset, run.size));
    ranks_->gather_weights(static_cast<int64_t>(bucket));
  }
  ranks_->wait_for_weights();
  precision_->weights_changed();
}

}  // namespace qstep::trainer
