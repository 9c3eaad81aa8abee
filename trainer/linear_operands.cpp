#include "trainer/linear_operands.h"

namespace qstep::trainer {

using ops::columnwise;
using ops::Orientation;
using ops::QuantizedTensor;
using ops::rowwise;
using ops::TakeValues;
using ops::Tensor;
using precision::OperandSlot;
using precision::OperandTable;
using precision::QuantSpec;

namespace {

constexpr std::string_view kOwner = "quantized operands";

QuantizedTensor lay_out(ops::Arena& arena, const QuantSpec& spec, Orientation orientation,
                        int64_t rows, int64_t cols, TakeValues take = TakeValues::kYes) {
  return ops::lay_out_quantized(arena, kOwner, spec, orientation, rows, cols, take);
}

// `second` is the transpose of `first`: one set of values serves both.
QuantizedTensor lay_out_second(ops::Arena& arena, const QuantizedTensor& first,
                               const QuantSpec& spec, Orientation orientation, int64_t rows,
                               int64_t cols) {
  const bool row_first = first.orientation == Orientation::kRowwise;
  const bool shared = row_first ? precision::transposable(first.spec, spec)
                                : precision::transposable(spec, first.spec);
  QuantizedTensor second =
      lay_out(arena, spec, orientation, rows, cols, shared ? TakeValues::kNo : TakeValues::kYes);
  if (shared) second.values = first.values;
  return second;
}

}  // namespace

void lay_out_kept(ops::Arena& arena, LinearTensors& t, const OperandTable& table,
                  const LinearShape& shape, int64_t n_tokens, Purpose purpose) {
  t.w.rowwise =
      lay_out(arena, table[OperandSlot::kWFprop], Orientation::kRowwise, shape.out, shape.in);
  if (purpose == Purpose::kEvaluation) return;
  t.w.columnwise = lay_out_second(arena, t.w.rowwise, table[OperandSlot::kWDgrad],
                                  Orientation::kColumnwise, shape.out, shape.in);
  t.x.columnwise =
      lay_out(arena, table[OperandSlot::kXWgrad], Orientation::kColumnwise, n_tokens, shape.in);
}

void lay_out_scratch(ops::Arena& arena, LinearTensors& t, const OperandTable& table,
                     const LinearShape& shape, int64_t n_tokens, Purpose purpose) {
  {
    const ops::Arena::Scope forward(arena);
    const QuantSpec& x = table[OperandSlot::kXFprop];
    t.x.rowwise =
        purpose == Purpose::kTraining
            ? lay_out_second(arena, t.x.columnwise, x, Orientation::kRowwise, n_tokens, shape.in)
            : lay_out(arena, x, Orientation::kRowwise, n_tokens, shape.in);
  }
  if (purpose == Purpose::kEvaluation) return;
  const ops::Arena::Scope backward(arena);
  t.dy.rowwise =
      lay_out(arena, table[OperandSlot::kDyDgrad], Orientation::kRowwise, n_tokens, shape.out);
  t.dy.columnwise = lay_out_second(arena, t.dy.rowwise, table[OperandSlot::kDyWgrad],
                                   Orientation::kColumnwise, n_tokens, shape.out);
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

OperandPair LinearOperands::make(ops::Ops& ops, const QuantizedPair& q, const Tensor& source,
                                 LinearTensor tensor) const {
  const TensorOperands& uses = kOperandsOf[static_cast<size_t>(tensor)];
  // Generation feeds fewer tokens than there is room for.
  const QuantizedTensor row = q.rowwise && q.rowwise.values.rows != source.rows
                                  ? ops::first_rows(q.rowwise, source.rows)
                                  : q.rowwise;
  const QuantizedTensor column = pass_->training ? q.columnwise : QuantizedTensor{};
  if (row || column) {
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
        .delayed_scale = {},
        .delayed_amax = {},
        .non_finite = non_finite_.col_range(static_cast<int64_t>(tensor), 1),
        .row_stats = counted && row ? &row_stats : nullptr,
        .column_stats = counted && column ? &column_stats : nullptr};
    if (delayed(row) || delayed(column)) {
      const int64_t state_row = tensor_row(module_, tensor);
      call.delayed_scale = delayed_->scale(state_row);
      if (pass_->training) call.delayed_amax = delayed_->amax(state_row);
    }
    ops.quantize(row, column, source, call);
    if (call.row_stats != nullptr) pass_->ledger->add(module_, uses.row, row_stats);
    if (call.column_stats != nullptr) pass_->ledger->add(module_, uses.column, column_stats);
  }
  return {.rowwise = row ? ops::operand(row) : rowwise(source),
          .columnwise = column ? ops::operand(column) : columnwise(source)};
}

OperandPair LinearOperands::input(ops::Ops& ops, const Tensor& x) const {
  if (plain()) return {rowwise(x), columnwise(x)};
  return make(ops, phases_[pass_->phase].x, x, LinearTensor::kX);
}

OperandPair LinearOperands::weight(ops::Ops& ops, const Tensor& w) {
  if (plain()) return {rowwise(w), columnwise(w)};
  const bool made = weights_version_ == pass_->weights_version && weights_phase_ == pass_->phase &&
                    (weights_for_training_ || !pass_->training);
  if (!made) {
    weight_ = make(ops, phases_[pass_->phase].w, w, LinearTensor::kW);
    weights_version_ = pass_->weights_version;
    weights_phase_ = pass_->phase;
    weights_for_training_ = pass_->training;
  }
  return weight_;
}

OperandPair LinearOperands::gradient(ops::Ops& ops, const Tensor& dy) const {
  if (plain()) return {rowwise(dy), columnwise(dy)};
  return make(ops, phases_[pass_->phase].dy, dy, LinearTensor::kDy);
}

}  // namespace qstep::trainer
