// Both operands of a tensor as recipes quantize them, for benchmarks.
#pragma once

#include "precision/quant_spec.h"

namespace qstep::bench {

using precision::QuantSpec;

inline QuantSpec nvfp4() { return precision::default_spec(precision::QuantFormat::kNvfp4); }
inline QuantSpec with_hadamard(QuantSpec spec, int size) {
  spec.hadamard = size;
  return spec;
}
inline QuantSpec stochastic(QuantSpec spec) {
  spec.rounding = precision::Rounding::kStochastic;
  return spec;
}
inline QuantSpec square(QuantSpec spec) {
  spec.block = {spec.block.k, spec.block.k};
  return spec;
}
inline QuantSpec four_over_six(QuantSpec spec) {
  spec.four_over_six = precision::FourOverSix::kMse;
  spec.e4m3_max = 256;
  return spec;
}
inline QuantSpec ms_eden() {
  QuantSpec spec = with_hadamard(nvfp4(), 128);
  spec.rounding = precision::Rounding::kMsEden;
  spec.signs = precision::Signs::kPerStep;
  return spec;
}
inline QuantSpec of(precision::QuantFormat format) { return precision::default_spec(format); }
inline QuantSpec fp8_blocks(int rows) {
  QuantSpec spec = of(precision::QuantFormat::kFp8E4m3);
  spec.block = {rows, 128};
  return spec;
}

struct QuantizeCase {
  const char* name;
  QuantSpec row, column;
  int passes;  // over the source
};

inline const QuantizeCase kQuantizeCases[] = {
    {"nvfp4 x: rowwise, columnwise RHT-16", nvfp4(), with_hadamard(nvfp4(), 16), 2},
    {"nvfp4 dy: the same, stochastic", stochastic(nvfp4()), stochastic(with_hadamard(nvfp4(), 16)),
     2},
    {"nvfp4 w: 16x16", square(nvfp4()), square(nvfp4()), 2},
    {"nvfp4 4/6", four_over_six(nvfp4()), four_over_six(nvfp4()), 2},
    {"ms-eden, Hadamard-128", ms_eden(), ms_eden(), 2},
    {"mxfp8: 1x32 and 32x1", of(precision::QuantFormat::kMxfp8E4m3),
     of(precision::QuantFormat::kMxfp8E4m3), 1},
    {"fp8 per tensor", of(precision::QuantFormat::kFp8E4m3), of(precision::QuantFormat::kFp8E4m3),
     2},
    {"fp8 1x128 and 128x1", fp8_blocks(1), fp8_blocks(1), 1},
    {"fp8 128x128", fp8_blocks(128), fp8_blocks(128), 1},
};

}  // namespace qstep::bench
