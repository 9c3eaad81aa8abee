#include "trainer/run/ledger.h"

#include <algorithm>

#include "parallel/shards.h"

namespace qstep::trainer {

using precision::kOperandSlots;
using precision::OperandSlot;

namespace {

void add(LedgerEntry& entry, int64_t micro_batches, const ops::QuantStats& stats) {
  ops::QuantStats& sum = entry.stats;
  entry.micro_batches += micro_batches;
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

}  // namespace

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

void NumericLedger::add(int64_t module, OperandSlot slot, const ops::QuantStats& stats,
                        bool native) {
  LedgerEntry& entry =
      entries_[static_cast<size_t>(module * kOperandSlots + static_cast<int64_t>(slot))];
  entry.native = native;
  trainer::add(entry, 1, stats);
}

void NumericLedger::join(const RankGroups& groups) {
  parallel::Comm& comm = groups.hosts().world();
  if (comm.size() == 1) return;
  struct Part {
    int64_t micro_batches;
    ops::QuantStats stats;
  };
  const auto n_ranks = static_cast<size_t>(comm.size()), rank = static_cast<size_t>(comm.rank());
  const size_t n = entries_.size();
  std::vector<Part> parts(n_ranks * n);
  for (size_t i = 0; i < n; ++i) {
    parts[rank * n + i] = {entries_[i].micro_batches, entries_[i].stats};
  }
  const auto bytes = static_cast<int64_t>(parts.size() * sizeof(Part));
  const ops::Tensor all = ops::matrix(parts.data(), ops::Dtype::kU8, 1, bytes);
  comm.wait(comm.all_gather(all, parallel::even_bounds(bytes, comm.size())));

  for (size_t i = 0; i < n; ++i) {
    LedgerEntry& entry = entries_[i];
    const bool weight = entry.slot == OperandSlot::kWFprop || entry.slot == OperandSlot::kWDgrad;
    entry.micro_batches = 0;
    entry.stats = {};
    for (size_t r = 0; r < n_ranks; ++r) {
      const parallel::Mesh& mesh = groups.mesh();
      const auto its = static_cast<int>(r);
      // All data-parallel ranks quantize the same weights, a tensor group the same micro-batches.
      if (weight && mesh.data_rank(its) != 0) continue;
      const Part& part = parts[r * n + i];
      trainer::add(entry, mesh.tensor_rank(its) == 0 ? part.micro_batches : 0, part.stats);
    }
  }
}

}  // namespace qstep::trainer
