// The operands of one linear layer: what its three GEMMs read instead of x, w and dy.
//
// A tensor is quantized into both of its operands in one call. The weight's are made once per
// optimizer step and serve all of its micro-batches; x's second one waits for backward in memory of
// its own; the others live in scratch that all layers share. An operand that the recipe leaves in
// the compute type is a view of the tensor and costs nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/ops.h"
#include "trainer/config/layer_precision.h"
#include "trainer/model/delayed_state.h"
#include "trainer/model/native_products.h"

namespace qstep::trainer {

using precision::kOperandsOf;
using precision::TensorOperands;

// The random bits of a tensor in a pass (numerics 4.3). The weight is quantized once for all
// micro-batches of a step: its bits are those of micro-batch 0, whatever `micro_batch` says.
ops::QuantRandom quant_random(uint64_t seed, uint32_t step, uint64_t micro_batch, int64_t module,
                              LinearTensor tensor);

// Hears what the quantizers did. Nobody asks for it in most steps: counting costs time.
class QuantLedger {
 public:
  virtual ~QuantLedger() = default;
  // native: its GEMM multiplies the codes; otherwise what they decode to.
  virtual void add(int64_t module, precision::OperandSlot slot, const ops::QuantStats& stats,
                   bool native) = 0;
};

// The pass through the model that is running; every layer reads it at every call.
struct PrecisionPass {
  bool training = false;  // backward follows: its operands are made too, amaxes are recorded
  bool quantized = true;  // false: every operand stays in the compute type
  size_t phase = 0;
  uint64_t seed = 0;
  precision::StochasticRounder rounder = precision::StochasticRounder::kPortable;
  uint32_t step = 0;             // optimizer step
  uint64_t micro_batch = 0;      // within the step
  uint64_t weights_version = 0;  // changes with the weights, and with every step
  // The version that all layers have operands of, for training in this phase; 0: none.
  uint64_t weights_made = 0;
  QuantLedger* ledger = nullptr;
};

// Both orientations of a tensor; empty where the recipe leaves it alone or nobody reads it.
struct QuantizedPair {
  ops::QuantizedTensor rowwise, columnwise;
};
struct OperandPair {
  ops::Operand rowwise, columnwise;
};

// How a tensor-parallel group shares the layer, by LinearTensor; a tensor that is not cut is there
// on every rank.
struct LinearSplit {
  std::array<ops::LogicalPlace, 3> places;
  ops::AmaxJoin* join = nullptr;  // of the group; null: not shared
  bool first_rank = true;         // of it

  bool is_cut(LinearTensor tensor) const {
    return places[static_cast<size_t>(tensor)].split != ops::SplitDim::kNone;
  }
};

// One layer in one phase.
struct LinearTensors {
  QuantizedPair x, w, dy;
};

// What is stored of a tensor's two operands: codes where the GEMM that reads one multiplies them
// (native), decoded values where it does not. Values serve both GEMMs where one operand is the
// transpose of the other; codes are made for each, as products of codes read rows that are
// contiguous along k (ops/gemm/gemm_plan_key.h). The library wants that on GPUs of compute
// capability 8.9, 9.0 and 12.x ("TN"); what 10.x takes beside it is not used.
struct StoredOperands {
  ops::Stored rowwise, columnwise;
  bool one_copy = false;  // of values
};
StoredOperands stored_operands(const precision::OperandTable& table, LinearTensor tensor,
                               bool row_native, bool column_native);

// What lives from call to call: the weight's operands, and x's for backward. Without training,
// only what the forward pass reads. Operands of native products are stored as codes; then every
// pass is of n_tokens.
void lay_out_kept(ops::Arena& arena, LinearTensors& t, const precision::OperandTable& table,
                  const LinearShape& shape, int64_t n_tokens, Purpose purpose,
                  const NativeProducts& native);
// What lives within one call; `arena` gives the same memory to every layer. After lay_out_kept.
void lay_out_scratch(ops::Arena& arena, LinearTensors& t, const precision::OperandTable& table,
                     const LinearShape& shape, int64_t n_tokens, Purpose purpose,
                     const NativeProducts& native);

class LinearOperands {
 public:
  LinearOperands() = default;  // nothing is quantized
  // phases: this layer's tensors, phase by phase. non_finite [1, 3] int32: set where x, w or dy
  // held a NaN or an infinity. amaxes [1, 2] int32: where wanted_amax(x), (dy) are, or empty. pass,
  // delayed and split.join must outlive this.
  LinearOperands(const PrecisionPass& pass, const DelayedState& delayed, int64_t module,
                 std::vector<LinearTensors> phases, const ops::Tensor& non_finite,
                 const ops::Tensor& amaxes, const LinearSplit& split)
      : pass_(&pass),
        delayed_(&delayed),
        module_(module),
        phases_(std::move(phases)),
        non_finite_(non_finite),
        amaxes_(amaxes),
        split_(split) {}

  // Where the amax of the next x or dy shall be (ops.h) when it is handed to input() or gradient().
  // Empty where no quantizer of the running pass takes it, or where this rank makes a part of the
  // tensor only.
  ops::Tensor wanted_amax(LinearTensor tensor) const;

  // x [N, I], w [O, I], dy [N, O]. Of a pass without backward only the rowwise operand is there.
  // amax: wanted_amax(), filled by who made the tensor; empty where nobody did.
  OperandPair input(ops::Ops& ops, const ops::Tensor& x, const ops::Tensor& amax = {}) const;
  OperandPair weight(ops::Ops& ops, const ops::Tensor& w);
  OperandPair gradient(ops::Ops& ops, const ops::Tensor& dy, const ops::Tensor& amax = {}) const;

 private:
  bool plain() const { return pass_ == nullptr || !pass_->quantized; }
  QuantizedPair used(const QuantizedPair& q, const ops::Tensor& source) const;
  static OperandPair operands(const QuantizedPair& q, const ops::Tensor& source);
  void quantize(ops::Ops& ops, const QuantizedPair& q, const ops::Tensor& source,
                LinearTensor tensor, const ops::Tensor& amax) const;
  OperandPair make(ops::Ops& ops, const QuantizedPair& tensors, const ops::Tensor& source,
                   LinearTensor tensor, const ops::Tensor& amax) const;

  const PrecisionPass* pass_ = nullptr;
  const DelayedState* delayed_ = nullptr;
  int64_t module_ = 0;
  std::vector<LinearTensors> phases_;
  ops::Tensor non_finite_, amaxes_;
  LinearSplit split_;

  // What the weight's operands were made for.
  uint64_t weights_version_ = 0;  // 0: not made
  size_t weights_phase_ = 0;
  bool weights_for_training_ = false;
};

}  // namespace qstep::trainer
