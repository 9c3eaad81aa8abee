#include "ops/quantize/forward_source.h"

namespace qstep::ops {

ForwardSource forward_source(const QuantizedTensor& rowwise, const QuantSpec& columnwise) {
  const Tensor& values = rowwise.values;
  const Tensor& scales = rowwise.tile_scales;
  const precision::BlockShape tile = scale_tile(rowwise.spec);
  const int64_t tile_k = tile.k == 0 ? values.cols : tile.k;
  const bool factor_passes = rowwise.scale && has_tensor_scale(columnwise);
  const float denominator = scale_denominator(rowwise.spec);
  const bool multiplied = scales || (rowwise.scale && !factor_passes);

  ForwardSource source;
  source.values.resize(static_cast<size_t>(values.size()));
  if (factor_passes) source.factor = *rowwise.scale.as<float>() / denominator;
  for (int64_t r = 0; r < values.rows; ++r) {
    for (int64_t c = 0; c < values.cols; ++c) {
      Bf16 value = values.as<Bf16>()[r * values.ld + c];
      if (multiplied) {
        const float factor = scales ? scales.as<float>()[r / tile.rows * scales.ld + c / tile_k]
                                    : *rowwise.scale.as<float>() * (1.0f / denominator);
        value = precision::to_bf16(precision::to_float(value) * factor);
      }
      source.values[static_cast<size_t>(r * values.cols + c)] = value;
    }
  }
  return source;
}

}  // namespace qstep::ops
