// One training step: micro-batches forward and backward, gradient sum, norm, clip, update.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ops/ops.h"
#include "parallel/comm.h"
#include "trainer/backend/memory_rows.h"
#include "trainer/backend/rank_groups.h"
#include "trainer/config/config.h"
#include "trainer/model/model.h"
#include "trainer/model/parameters.h"
#include "trainer/model/shard_plan.h"
#include "trainer/model/tensor_parallel.h"
#include "trainer/step/data_parallel.h"
#include "trainer/step/gradient_sum.h"
#include "trainer/step/optimizer.h"
#include "trainer/timing/breakdown.h"
#include "trainer/timing/recordings.h"
#include "trainer/timing/timed_ops.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// Where this rank's micro-batches come from, in order. next() blocks until one is there; the spans
// live until the next call.
struct MicroBatch {
  std::span<const int32_t> tokens, targets;  // [B, T]
};
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual MicroBatch next() = 0;
};

struct StepResult {
  float loss = 0;        // mean over the step's targets, nats
  float grad_norm = 0;   // before clipping
  bool skipped = false;  // loss or norm not finite: no update
  // The first linear layer and tensor that a quantizer found a NaN or an infinity in
  // ("blocks.3.down dy"): FP4 hides it from the loss. Empty: none did.
  std::string non_finite_input;
  PhaseTimes phases_ms{};
  std::optional<Breakdown> breakdown_ms;  // at timing.level = ops
  std::optional<double> host_ms;          // Timeline::host_ms
  // Between the ranks during this step, beside the computation or not.
  double comm_busy_ms = 0;
  int64_t comm_bytes = 0;  // sent by this rank
};

// Bytes per owner on rank `rank` of `n_ranks`, parallel.tensor of them a tensor group, of a
// training run of this configuration, largest first; nothing is allocated.
// native: what the backend multiplies by codes; of one that decodes everything otherwise.
std::vector<MemoryRow> training_memory(const Config& config, int n_ranks = 1, int rank = 0,
                                       const NativeProducts& native = {});

class Trainer {
 public:
  // Lays out and allocates everything; weights are initialised from the seed. One of the ranks
  // `worlds`, which outlive it; all of them make the same calls. Throws an Error (config) where so
  // many ranks cannot share the run.
  Trainer(ops::Ops& ops, const Config& config, const Worlds& worlds);
  // The only one.
  Trainer(ops::Ops& ops, const Config& config);
  ~Trainer();

  // The next optimizer step, at rate lr; `update` counts the updates made, this one included. The
  // result is the same on all ranks but for its times. Scratch memory of the operations grows in
  // the first one: an Error (out of memory) names the owners, here as in the constructor.
  StepResult step(BatchSource& batches, double lr, int64_t update);

  // Mean loss of one micro-batch with the weights as they are, in the precision of the last step
  // or in the compute type (precision.eval). All ranks of a tensor group call it together, with the
  // same micro-batch.
  float evaluate(const MicroBatch& batch);

  // After a checkpoint was read: the steps that were done.
  void set_steps_done(int64_t steps);
  // Hears of every quantization of the steps from now on; null: nobody.
  void set_ledger(QuantLedger* ledger) { ledger_ = ledger; }

  // The work of every call of the steps from now on, at timing.level = ops; null: of none. The log
  // grows until its owner clears it.
  void log_work(WorkLog* log) {
    if (timed_ops_) timed_ops_->log_work(log);
  }

  // Compares what ranks hold alike (replica_check.h); all of them together.
  void check_replicas();

  // After the master weights were set from outside: rounds the compute weights from them.
  void refresh_weights();

  Parameters& parameters() { return parameters_; }
  const ShardPlan& shards() const { return shards_; }
  const RankGroups& groups() const { return groups_; }
  // Of the last step.
  const Timeline& timeline() const { return timer_; }
  // State of the precision recipe that belongs into a checkpoint beside the parameters.
  std::vector<NamedTensor> precision_state() const { return precision_->named_tensors(); }
  const Config& config() const { return config_; }
  // The gradient of the last step (FP32, before clipping), where this rank owns it.
  ParameterGroup& gradients() { return gradient_sum_->total(); }

 private:
  struct Layout;
  class Buckets;
  static Layout lay_out(ops::Arena& arena, const Config& config, const ShardPlan& shards,
                        int n_data_ranks, const NativeProducts& native);
  friend std::vector<MemoryRow> training_memory(const Config& config, int n_ranks, int rank,
                                                const NativeProducts& native);

  std::vector<MemoryRow> memory() const;
  StepResult make_step(BatchSource& batches, double lr, int64_t update);
  float loss_of(const MicroBatch& batch);
  void upload(const MicroBatch& batch);
  void download(std::span<const ops::HostCopy> copies);
  void compute_micro_batch(int64_t micro, int64_t n_micros, const ops::Moment& moment);
  void clip_and_update(double lr, int64_t update);
  void sum_uncut_gradients();
  void sum_squares();
  void join_ranks();
  void update_weights(double lr, int64_t update);

  Timeline timer_;
  std::optional<TimedOps> timed_ops_;  // at timing.level = ops
  ops::Ops& ops_;
  Config config_;
  Recordings recordings_;
  RankGroups groups_;
  TensorParallel tensor_;
  ShardPlan shards_;
  ops::Buffer buffer_;
  Parameters parameters_;
  std::unique_ptr<GradientSum> gradient_sum_;
  std::unique_ptr<ModelPrecision> precision_;
  std::unique_ptr<Model> model_;
  std::vector<DecayStretch> decay_stretches_;
  // What every rank adds its own to and zero elsewhere: [1, G + chunks] and its two parts, the mean
  // loss of each micro-batch and the sums of squares of the gradient.
  ops::Tensor step_sums_, micro_losses_, square_sums_;
  ops::Tensor scalars_;                  // [1, 3]: loss, gradient norm, clip factor
  std::unique_ptr<DataParallel> ranks_;  // behind the memory that it reads and writes
  std::unique_ptr<Buckets> buckets_;
  QuantLedger* ledger_ = nullptr;
  int64_t steps_done_ = 0;
};

}  // namespace qstep::trainer
