// The precision recipe of a running model: the plan, the memory of the quantized operands, the
// state of delayed scaling, and the pass that its linear layers are in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "trainer/config/config.h"
#include "trainer/model/linear_operands.h"
#include "trainer/model/tensor_parallel.h"

namespace qstep::trainer {

// Everything empty where the plan quantizes nothing.
struct PrecisionTensors {
  std::vector<std::vector<LinearTensors>> phases;  // [phase][module]; phases share their memory
  ops::Tensor non_finite;                          // [modules, 3] int32: x, w, dy
  // [modules, 2] int32: of x, dy, where a norm or an activation leaves them for the quantizer;
  // empty where no quantizer of the plan takes one.
  ops::Tensor amaxes;
  DelayedTensors delayed;

  // For micro-batches of up to n_tokens. model: this rank's share of it (tensor_share).
  static PrecisionTensors lay_out(ops::Arena& arena, const PrecisionPlan& plan,
                                  const ModelConfig& model, int64_t n_tokens, Purpose purpose,
                                  const NativeProducts& native = {});
};

class ModelPrecision {
 public:
  ModelPrecision(ops::Ops& ops, PrecisionPlan plan, PrecisionTensors tensors, uint64_t seed);
  // Of a model whose layers `group` shares; it outlives this. model: all of it.
  ModelPrecision(ops::Ops& ops, PrecisionPlan plan, PrecisionTensors tensors, uint64_t seed,
                 const ModelConfig& model, TensorParallel& group);
  ModelPrecision(const ModelPrecision&) = delete;
  ModelPrecision& operator=(const ModelPrecision&) = delete;

  // For the layer that reads them; this must outlive it.
  LinearOperands linear(int64_t block, LinearKind kind) const;

  // A training step (from 1): begin_step, then begin_micro_batch (g from 0) ahead of every forward
  // pass, then end_step behind the update, which a NaN factor ([1]) has left out.
  void begin_step(ops::Ops& ops, int64_t step, QuantLedger* ledger);
  void begin_micro_batch(int64_t g) { pass_.micro_batch = static_cast<uint64_t>(g); }
  // A forward pass of the step is over, whoever made its calls.
  void weights_made() { pass_.weights_made = pass_.weights_version; }
  void end_step(ops::Ops& ops, const ops::Tensor& factor);

  // What the micro-batches of a step leave behind on each rank, for the trainer to join between
  // begin_step and end_step; empty where the recipe has none. Maximum over the ranks:
  const ops::Tensor& amaxes() const { return delayed_.amaxes(); }
  // Sum over the ranks:
  const ops::Tensor& non_finite_counts() const { return t_.non_finite; }

  // The phase of the recipe that the step is in.
  size_t phase() const { return training_phase_; }

  // Forward passes without backward, as step `step` ran them; nothing of them outlives them but the
  // weights' operands.
  void begin_evaluation(int64_t step, EvalPrecision precision);

  // The weights were set from outside.
  void weights_changed() { ++pass_.weights_version; }

  // What first_non_finite() needs of the step on the host; no tensor where the recipe counts none.
  ops::HostCopy non_finite_copy() { return {host_non_finite_.data(), t_.non_finite}; }
  // The first layer and operand of the step whose input held a NaN or an infinity, in the order of
  // the computation ("blocks.3.down dy"); empty when there was none.
  std::string first_non_finite() const;

  // State for the checkpoint; none in most recipes. Once it was set from outside, restored() with
  // the steps that it has seen.
  std::vector<NamedTensor> named_tensors() const { return delayed_.named_tensors(); }
  void restored(ops::Ops& ops, int64_t steps_done);

 private:
  PrecisionPlan plan_;
  PrecisionTensors t_;
  DelayedState delayed_;
  PrecisionPass pass_;
  bool plain_;
  std::array<LinearSplit, kLinearsPerBlock> splits_;  // by LinearKind
  size_t training_phase_ = 0;
  std::vector<int32_t> host_non_finite_;
};

}  // namespace qstep::trainer
