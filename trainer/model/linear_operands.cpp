#include "trainer/model/linear_operands.h"

namespace qstep::trainer {

using ops::columnwise;
using ops::Orientation;
using ops::QuantizedTensor;
using ops::rowwise;
using ops::Tensor;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantSpec;

namespace {

constexpr std::string_view kOwner = "quantized operands";

// Where the operands of one layer go.
class Layout {
 public:
  Layout(ops::Arena& arena, const OperandTable& table, const LinearShape& shape, int64_t n_tokens,
         Purpose purpose, const NativeProducts& native)
      : arena_(arena), table_(table), shape_(shape), n_tokens_(n_tokens) {
    const size_t n_gemms = purpose == Purpose::kTraining ? native_.size() : 1;  // fprop
    for (size_t gemm = 0; gemm < n_gemms; ++gemm) {
      native_[gemm] = native.has(table, static_cast<precision::Gemm>(gemm), shape, n_tokens);
    }
  }

  QuantizedTensor first(OperandSlot slot) const { return lay_out(slot, stored(slot)); }
  // The other orientation of what is there.
  QuantizedTensor second(OperandSlot slot, const QuantizedTensor& first) const {
    ops::Stored own = stored(slot);
    const bool one_copy = both(tensor_of(slot)).one_copy;
    if (one_copy) own.values = false;
    QuantizedTensor second = lay_out(slot, own);
    if (one_copy) second.values = first.values;
    return second;
  }

 private:
  static LinearTensor tensor_of(OperandSlot slot) {
    for (size_t i = 0; i < kOperandsOf.size(); ++i) {
      if (kOperandsOf[i].row == slot || kOperandsOf[i].column == slot) {
        return static_cast<LinearTensor>(i);
      }
    }
    ops::check(false, "linear operands: a slot without a tensor");
    return {};
  }
  static bool is_rowwise(OperandSlot slot) {
    return kOperandsOf[static_cast<size_t>(tensor_of(slot))].row == slot;
  }
  StoredOperands both(LinearTensor tensor) const {
    const TensorOperands& uses = kOperandsOf[static_cast<size_t>(tensor)];
    return stored_operands(table_, tensor, native_[uses.row_gemm], native_[uses.column_gemm]);
  }
  ops::Stored stored(OperandSlot slot) const {
    const StoredOperands operands = both(tensor_of(slot));
    return is_rowwise(slot) ? operands.rowwise : operands.columnwise;
  }
  QuantizedTensor lay_out(OperandSlot slot, ops::Stored stored) const {
    const LinearTensor tensor = tensor_of(slot);
    return ops::lay_out_quantized(
        arena_, kOwner, table_[slot],
        is_rowwise(slot) ? Orientation::kRowwise : Orientation::kColumnwise,
        tensor == LinearTensor::kW ? shape_.out : n_tokens_,
        tensor == LinearTensor::kDy ? shape_.out : shape_.in, stored);
  }

  ops::Arena& arena_;
  const OperandTable& table_;
  const LinearShape& shape_;
  int64_t n_tokens_;
  std::array<bool, precision::kGemms.size()> native_{};
};

}  // namespace

StoredOperands stored_operands(const OperandTable& table, LinearTensor tensor, bool row_native,
                               bool column_native) {
  const TensorOperands& uses = kOperandsOf[static_cast<size_t>(tensor)];
  const QuantSpec &row = table[uses.row], &column = table[uses.column];
  // What becomes another operand's source is decoded all the same.
  const bool source = column.source == precision::Source::kForward;
  StoredOperands stored{.rowwise = {.values = !row_native || source, .codes = row_native},
                        .columnwise = {.values = !column_native || source, .codes = column_native}};
  stored.one_copy =
      precision::transposable(row, column) && stored.rowwise.values && stored.columnwise.values;
  return stored;
}

void lay_out_kept(ops::Arena& arena, LinearTensors& t, const OperandTable& table,
                  const LinearShape& shape, int64_t n_tokens, Purpose purpose,
                  const NativeProducts& native) {
  const Layout layout(arena, table, shape, n_tokens, purpose, native);
  t.w.rowwise = layout.first(OperandSlot::kWFprop);
  if (purpose == Purpose::kEvaluation) return;
  t.w.columnwise = layout.second(OperandSlot::kWDgrad, t.w.rowwise);
  t.x.columnwise = layout.first(OperandSlot::kXWgrad);
}

void lay_out_scratch(ops::Arena& arena, LinearTensors& t, const OperandTable& table,
                     const LinearShape& shape, int64_t n_tokens, Purpose purpose,
                     const NativeProducts& native) {
  const Layout layout(arena, table, shape, n_tokens, purpose, native);
  {
    const ops::Arena::Scope forward(arena);
    t.x.rowwise = purpose == Purpose::kTraining
                      ? layout.second(OperandSlot::kXFprop, t.x.columnwise)
                      : layout.first(OperandSlot::kXFprop);
  }
  if (purpose == Purpose::kEvaluation) return;
  const ops::Arena::Scope backward(arena);
  t.dy.rowwise = layout.first(OperandSlot::kDyDgrad);
  t.dy.columnwise = layout.second(OperandSlot::kDyWgrad, t.dy.rowwise);
}

ops::QuantRandom quant_random(uint64_t seed, uint32_t step, uint64_t micro_batch, int64_t module,
                              LinearTensor tensor) {
  const TensorOperands& uses = kOperandsOf[static_cast<size_t>(tensor)];
  return {.seed = seed,
          .step = step,
          .micro_batch = tensor == LinearTensor::kW ? 0 : micro_batch,
          .module = static_cast<uint32_t>(module),
          .slot = static_cast<uint32_t>(tensor),
          .gemm_row = uses.row_gemm,
          .gemm_column = uses.column_gemm};
}

// What the running pass reads of q.
QuantizedPair LinearOperands::used(const QuantizedPair& q, const Tensor& source) const {
  // Generation feeds fewer tokens than there is room for.
  return {.rowwise = q.rowwise && q.rowwise.values.rows != source.rows
                         ? ops::first_rows(q.rowwise, source.rows)
                         : q.rowwise,
          .columnwise = pass_->training ? q.columnwise : QuantizedTensor{}};
}

OperandPair LinearOperands::operands(const QuantizedPair& q, const Tensor& source) {
  return {.rowwise = q.rowwise ? ops::operand(q.rowwise) : rowwise(source),
          .columnwise = q.columnwise ? ops::operand(q.columnwise) : columnwise(source)};
}

void LinearOperands::quantize(ops::Ops& ops, const QuantizedPair& q, const Tensor& source,
                              LinearTensor tensor, const Tensor& amax) const {
  const auto& [row, column] = q;
  if (!row && !column) return;
  const TensorOperands& uses = kOperandsOf[static_cast<size_t>(tensor)];
  const auto delayed = [](const QuantizedTensor& t) {
    return t && t.spec.amax == precision::AmaxScope::kDelayed;
  };
  ops::QuantStats row_stats, column_stats;
  // Every rank counts its part of a tensor that is cut, one of them a tensor that all have.
  const bool cut = split_.is_cut(tensor);
  const bool counted = pass_->ledger != nullptr && (cut || split_.first_rank);
  ops::QuantCall call{
      .random = quant_random(pass_->seed, pass_->step, pass_->micro_batch, module_, tensor),
      .place = split_.places[static_cast<size_t>(tensor)],
      .join = cut ? split_.join : nullptr,
      .amax = amax,
      .delayed_scale = {},
      .delayed_amax = {},
      .non_finite = non_finite_.col_range(static_cast<int64_t>(tensor), 1),
      .row_stats = counted && row ? &row_stats : nullptr,
      .column_stats = counted && column ? &column_stats : nullptr};
  call.random.rounder = pass_->rounder;
  if (delayed(row) || delayed(column)) {
    const int64_t state_row = tensor_row(module_, tensor);
    call.delayed_scale = delayed_->scale(state_row);
    if (pass_->training) call.delayed_amax = delayed_->amax(state_row);
  }
  ops.quantize(row, column, source, call);
  if (call.row_stats != nullptr) {
    pass_->ledger->add(module_, uses.row, row_stats, static_cast<bool>(row.codes));
  }
  if (call.column_stats != nullptr) {
    pass_->ledger->add(module_, uses.column, column_stats, static_cast<bool>(column.codes));
  }
}

OperandPair LinearOperands::make(ops::Ops& ops, const QuantizedPair& tensors, const Tensor& source,
                                 LinearTensor tensor, const Tensor& amax) const {
  const QuantizedPair q = used(tensors, source);
  quantize(ops, q, source, tensor, amax);
  return operands(q, source);
}

Tensor LinearOperands::wanted_amax(LinearTensor tensor) const {
  if (plain() || !amaxes_ || split_.join != nullptr || tensor == LinearTensor::kW) return {};
  const bool x = tensor == LinearTensor::kX;
  const LinearTensors& tensors = phases_[pass_->phase];
  const QuantizedPair& q = x ? tensors.x : tensors.dy;
  const bool taken =
      (q.rowwise && precision::takes_known_amax(q.rowwise.spec)) ||
      (pass_->training && q.columnwise && precision::takes_known_amax(q.columnwise.spec));
  return taken ? amaxes_.col_range(x ? 0 : 1, 1) : Tensor();
}

OperandPair LinearOperands::input(ops::Ops& ops, const Tensor& x, const Tensor& amax) const {
  if (plain()) return {rowwise(x), columnwise(x)};
  return make(ops, phases_[pass_->phase].x, x, LinearTensor::kX, amax);
}

OperandPair LinearOperands::weight(ops::Ops& ops, const Tensor& w) {
  if (plain()) return {rowwise(w), columnwise(w)};
  const QuantizedPair q = used(phases_[pass_->phase].w, w);
  const bool here = weights_version_ == pass_->weights_version && weights_phase_ == pass_->phase &&
                    (weights_for_training_ || !pass_->training);
  if (!here && pass_->weights_made != pass_->weights_version) {
    quantize(ops, q, w, LinearTensor::kW, {});
    weights_version_ = pass_->weights_version;
    weights_phase_ = pass_->phase;
    weights_for_training_ = pass_->training;
  }
  return operands(q, w);
}

OperandPair LinearOperands::gradient(ops::Ops& ops, const Tensor& dy, const Tensor& amax) const {
  if (plain()) return {rowwise(dy), columnwise(dy)};
  return make(ops, phases_[pass_->phase].dy, dy, LinearTensor::kDy, amax);
}

}  // namespace qstep::trainer
