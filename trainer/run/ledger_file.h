// ledger.jsonl: the numeric ledger of a run, a row per operand, layer and counted step, and its
// reader. trainer/run/README.md documents every field.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/base/json_lines.h"
#include "trainer/run/ledger.h"

namespace qstep::trainer {

inline constexpr int kLedgerSchema = 1;

// A row as it is read. What is not finite is NaN.
struct LedgerRow {
  int64_t step = 0;
  std::string layer;    // "blocks.3.qkv"
  std::string operand;  // "x_fprop"
  std::string format;   // "nvfp4 1x16 stochastic"
  bool emulated = true;
  int64_t elements = 0;
  int64_t blocks = 0;  // 0: one scale per tensor or row
  float amax = 0, scale = 0;
  // Shares of the elements, and of the blocks.
  float underflowed_share = 0, saturated_share = 0, non_finite_share = 0, zero_scale_share = 0;
  float relative_mse = 0;  // sum (v - dequantized)^2 / sum v^2
  float snr_db = 0;        // -10 log10 of it
};

LedgerRow ledger_row(int64_t step, const LedgerEntry& entry);

// The row as it stands in the file.
nlohmann::ordered_json to_json(const LedgerRow& row);

class LedgerFile {
 public:
  // Rows behind last_step are dropped; a new file begins with a header.
  LedgerFile(const std::string& path, int64_t last_step);

  // A row per operand that was quantized.
  void step(int64_t step, const NumericLedger& ledger);
  void sync() const { lines_.sync(); }

 private:
  bool has_header_;  // ahead of lines_: what was there is read before it is appended to
  JsonLines lines_;
};

// All rows, in the order of the file; a torn last line is left out. Error (config) where there is
// no ledger, or one of another schema, with what to do about it; Error (data) with path and line
// for a field of another type.
std::vector<LedgerRow> read_ledger(const std::string& path);

}  // namespace qstep::trainer
