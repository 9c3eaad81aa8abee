// Where a GPU's matrix units read block scales (cuBLASLt's 128x4 layout, numerics 9.4; E4M3 and
// E8M0 alike): rows are padded to 128 and columns to 4 with zeros; tiles of 128 x 4 are 512 bytes,
// one after another along the columns.
#pragma once

#include <cstdint>

#include "precision/hd.h"

namespace qstep::precision {

// Offset of the scale of row r of the operand and block c along k; cols: blocks along k.
QSTEP_HD constexpr int64_t swizzled_scale_offset(int64_t r, int64_t c, int64_t cols) {
  // Rows and blocks fit into 32 bits, unsigned ones: shifts and masks, once per block on a GPU.
  const auto row = static_cast<uint32_t>(r), block = static_cast<uint32_t>(c);
  const int64_t tile = int64_t{row / 128} * ((cols + 3) / 4) + block / 4;
  return tile * 512 + (row % 32 * 16 + row % 128 / 32 * 4 + block % 4);
}

QSTEP_HD constexpr int64_t swizzled_scale_bytes(int64_t rows, int64_t cols) {
  return (rows + 127) / 128 * 128 * ((cols + 3) / 4 * 4);
}

}  // namespace qstep::precision
