// The kernels of units of one length: each length is a file of its own, compiled side by side.
#pragma once

#include "ops/quantize_launch.cuh"
#include "ops/quantize_tiles.h"

#define QSTEP_QUANTIZE_UNITS(prefix, unit)                                                        \
  prefix template void QuantizeLaunch::blocks(const AmaxTiles<unit>&) const;                      \
  prefix template void QuantizeLaunch::blocks(const QuantizeTiles<unit, Leaves::kValues>&) const; \
  prefix template void QuantizeLaunch::blocks(const QuantizeTiles<unit, Leaves::kCodes>&) const;  \
  prefix template void QuantizeLaunch::blocks(const QuantizeTiles<unit, Leaves::kCounts>&) const
