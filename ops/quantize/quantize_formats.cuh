// The kernels of the block-scaled formats: each format is a file of its own, compiled side by side.
// `prefix` is extern where they are used.
#pragma once

#include "ops/quantize/quantize_amax_tiles.h"
#include "ops/quantize/quantize_launch.cuh"
#include "ops/quantize/quantize_tiles.h"

#define QSTEP_QUANTIZE_TILES(prefix, ...)                                                     \
  prefix template void QuantizeLaunch::blocks(                                                \
      const QuantizeTiles<TileFormat<precision::QuantFormat::__VA_ARGS__>, Leaves::kValues>&) \
      const;                                                                                  \
  prefix template void QuantizeLaunch::blocks(                                                \
      const QuantizeTiles<TileFormat<precision::QuantFormat::__VA_ARGS__>, Leaves::kCodes>&)  \
      const;                                                                                  \
  prefix template void QuantizeLaunch::blocks(                                                \
      const QuantizeTiles<TileFormat<precision::QuantFormat::__VA_ARGS__>, Leaves::kCounts>&) \
      const

#define QSTEP_QUANTIZE_NVFP4(prefix)                            \
  QSTEP_QUANTIZE_TILES(prefix, kNvfp4, 16, Nvfp4Rules::kPlain); \
  QSTEP_QUANTIZE_TILES(prefix, kNvfp4, 16);                     \
  QSTEP_QUANTIZE_TILES(prefix, kNvfp4, 32);                     \
  QSTEP_QUANTIZE_TILES(prefix, kNvfp4, 64);                     \
  QSTEP_QUANTIZE_TILES(prefix, kNvfp4, 128)
#define QSTEP_QUANTIZE_MXFP4(prefix)        \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp4, 32); \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp4, 64); \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp4, 128)
#define QSTEP_QUANTIZE_MXFP8(prefix)             \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp8E4m3, 32);  \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp8E4m3, 64);  \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp8E4m3, 128); \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp8E5m2, 32);  \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp8E5m2, 64);  \
  QSTEP_QUANTIZE_TILES(prefix, kMxfp8E5m2, 128)
#define QSTEP_QUANTIZE_FP8_BLOCKS(prefix)      \
  QSTEP_QUANTIZE_TILES(prefix, kFp8E4m3, 32);  \
  QSTEP_QUANTIZE_TILES(prefix, kFp8E4m3, 128); \
  QSTEP_QUANTIZE_TILES(prefix, kFp8E5m2, 32);  \
  QSTEP_QUANTIZE_TILES(prefix, kFp8E5m2, 128)
#define QSTEP_QUANTIZE_AMAXES(prefix)                                      \
  prefix template void QuantizeLaunch::blocks(const AmaxTiles<16>&) const; \
  prefix template void QuantizeLaunch::blocks(const AmaxTiles<32>&) const; \
  prefix template void QuantizeLaunch::blocks(const AmaxTiles<64>&) const; \
  prefix template void QuantizeLaunch::blocks(const AmaxTiles<128>&) const
