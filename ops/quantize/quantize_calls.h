// A quantize call on a GPU, or as a test runs it on the host: which passes it takes
// (ops/quantize/quantize_passes.h).
#pragma once

#include "ops/quantize/quantize_passes.h"

namespace qstep::ops::device {

// The columnwise operand, from what the rowwise one, quantized already, stands for.
template <class Launch>
void quantize_forward(const Launch& launch, const QuantizedTensor& rowwise,
                      const QuantizedTensor& columnwise, const QuantCall& call) {
  // A factor of the whole tensor passes into that of the columnwise operand, so that the decoded
  // values are the source, exactly; other factors are multiplied in.
  const bool factor_passes = rowwise.scale && columnwise.scale;
  ForwardFactor factor;
  if (rowwise.scale) {
    factor = {.scale = rowwise.scale.as<float>(), .denominator = scale_denominator(rowwise.spec)};
  }
  Tensor source = rowwise.values;
  if (!factor_passes && (rowwise.scale || rowwise.tile_scales)) {
    source = columnwise.values;
    const precision::BlockShape tile = scale_tile(rowwise.spec);
    launch.each(source.size(),
                ForwardValues{
                    .values = rowwise.values.as<Bf16>(),
                    .values_ld = rowwise.values.ld,
                    .to = source.as<Bf16>(),
                    .to_ld = source.ld,
                    .cols = source.cols,
                    .tensor = factor,
                    .tile_scales = rowwise.tile_scales ? rowwise.tile_scales.as<float>() : nullptr,
                    .tile_scales_ld = rowwise.tile_scales.ld,
                    .tile_rows = tile.rows,
                    .tile_k = tile.k == 0 ? source.cols : tile.k});
  }
  QuantizePasses passes(launch, source, call, factor_passes ? factor : ForwardFactor{});
  passes.add_side(columnwise, nullptr, call.column_stats);
  passes.run();
  if (factor_passes) launch.each(1, PassFactor{factor, columnwise.scale.as<float>()});
}

// ops::cpu::quantize with a Launch.
template <class Launch>
void quantize_with(const Launch& launch, const QuantizedTensor& rowwise,
                   const QuantizedTensor& columnwise, const Tensor& x, const QuantCall& call) {
  check_quantize(rowwise, columnwise, x, call);
  if (rowwise && columnwise && precision::transposable(rowwise.spec, columnwise.spec)) {
    // One set of codes, so one set of counts.
    QuantStats both;
    const bool counted = call.row_stats != nullptr || call.column_stats != nullptr;
    QuantizePasses passes(launch, x, call);
    passes.add_side(rowwise, &columnwise, counted ? &both : nullptr);
    passes.run();
    if (call.row_stats != nullptr) *call.row_stats = both;
    if (call.column_stats != nullptr) *call.column_stats = both;
    return;
  }
  const bool of_forward =
      rowwise && columnwise && columnwise.spec.source == precision::Source::kForward;
  QuantizePasses passes(launch, x, call);
  if (rowwise) passes.add_side(rowwise, nullptr, call.row_stats);
  if (columnwise && !of_forward) passes.add_side(columnwise, nullptr, call.column_stats);
  if (rowwise || columnwise) passes.run();
  if (of_forward) quantize_forward(launch, rowwise, columnwise, call);
}

}  // namespace qstep::ops::device
