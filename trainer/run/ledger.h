// The numeric ledger of a training step: what quantization did to every operand of every linear
// layer, summed over the step's micro-batches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/backend/rank_groups.h"
#include "trainer/model/linear_operands.h"

namespace qstep::trainer {

// Whether the step (from 1) is to be counted: the first, and every `every`-th; every 0: none.
constexpr bool ledger_due(int64_t step, int64_t every) {
  return every > 0 && (step == 1 || step % every == 0);
}

// One operand of one layer.
struct LedgerEntry {
  int64_t module = 0;
  precision::OperandSlot slot = precision::OperandSlot::kXFprop;
  const std::string* format = nullptr;  // describe() of its spec, owned by the ledger
  int64_t micro_batches = 0;            // that were counted; 1 for weights, 0: not quantized
  bool native = false;                  // its GEMM multiplied the codes
  ops::QuantStats stats;                // amax and scale: the largest of them
};

class NumericLedger final : public QuantLedger {
 public:
  explicit NumericLedger(const PrecisionPlan& plan);

  void begin_step(int64_t step);
  void add(int64_t module, precision::OperandSlot slot, const ops::QuantStats& stats,
           bool native) override;

  // Adds what the other ranks' micro-batches, and their parts of the same ones, did to the same
  // step; all ranks of the world together. Sums are formed rank by rank, in FP64.
  void join(const RankGroups& groups);

  // By layer, then operand; those without micro_batches were not quantized in this step.
  const std::vector<LedgerEntry>& entries() const { return entries_; }

 private:
  const PrecisionPlan plan_;
  std::vector<std::vector<std::string>> formats_;  // [phase][entry]
  std::vector<LedgerEntry> entries_;
};

}  // namespace qstep::trainer
