// Where a GPU's matrix units read block scales (cuBLASLt's 128x4 layout, numerics 9.4; E4M3 and
// E8M0 alike): rows are padded to 128 and columns to 4 with zeros; tiles of 128 x 4 are 512 bytes,
// one after another along the columns.
#pragma once

#include <cstdint>

#include "precision/hd.h"

namespace qstep::precision {

// Offset of the scale of row r of the operand and block c along k; cols: blocks along k.
QSTEP_HD constexpr int64_t swizzled_scale_offset(int64_t r, int64_t c, int64_t cols) {
  return (r / 128 * ((cols + 3) / 4) + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4;
}

QSTEP_HD constexpr int64_t swizzled_scale_bytes(int64_t rows, int64_t cols) {
  return (rows + 127) / 128 * 128 * ((cols + 3) / 4 * 4);
}

}  // namespace qstep::precision
