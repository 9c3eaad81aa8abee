#include "trainer/ledger.h"

#include <algorithm>

namespace qstep::trainer {

using precision::kOperandSlots;
using precision::OperandSlot;

NumericLedger::NumericLedger(const PrecisionPlan& plan) : plan_(plan) {
  for (const PrecisionPhase& phase : plan_.phases) {
    std::vector<std::string>& formats = formats_.emplace_back();
    for (const precision::OperandTable& table : phase.tables) {
      for (const precision::QuantSpec& spec : table.specs) formats.push_back(describe(spec));
    }
  }
  if (formats_.empty()) return;
  for (size_t i = 0; i < formats_[0].size(); ++i) {
    LedgerEntry& entry = entries_.emplace_back();
    entry.module = static_cast<int64_t>(i) / kOperandSlots;
    entry.slot = static_cast<OperandSlot>(i % kOperandSlots);
  }
}

void NumericLedger::begin_step(int64_t step) {
  if (entries_.empty()) return;
  const std::vector<std::string>& formats = formats_[plan_.phase_at(step)];
  for (size_t i = 0; i < entries_.size(); ++i) {
    entries_[i].format = &formats[i];
    entries_[i].micro_batches = 0;
    entries_[i].stats = {};
  }
}

void NumericLedger::add(int64_t module, OperandSlot slot, const ops::QuantStats& stats) {
  LedgerEntry& entry =
      entries_[static_cast<size_t>(module * kOperandSlots + static_cast<int64_t>(slot))];
  ops::QuantStats& sum = entry.stats;
  ++entry.micro_batches;
  sum.elements += stats.elements;
  sum.amax = std::max(sum.amax, stats.amax);
  sum.scale = std::max(sum.scale, stats.scale);
  sum.underflowed += stats.underflowed;
  sum.saturated += stats.saturated;
  sum.non_finite += stats.non_finite;
  sum.blocks += stats.blocks;
  sum.zero_scales += stats.zero_scales;
  sum.squared += stats.squared;
  sum.squared_error += stats.squared_error;
}

}  // namespace qstep::trainer
