// The precision ledger of a run: time of every GEMM, and what quantization did to its operands.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "trainer/report/report_peaks.h"
#include "trainer/report/report_sections.h"
#include "trainer/report/report_windows.h"

namespace qstep::trainer::report {

namespace {

// ---- GEMMs -------------------------------------------------------------------------------------

// What is added up: a GEMM of one layer, or (layer -1) of all layers.
using Site = std::tuple<int64_t, std::string, std::string, std::string, std::string, int64_t,
                        int64_t, int64_t>;  // layer, op, pass, formats, m, n, k

struct Times {
  double ms = 0, flops = 0, calls = 0;  // sums over ranks and steps
  bool emulated = false;
  double peak = 0;  // of the format that ran; 0: not known
  std::set<int64_t> layers;
  double flops_per_s() const { return ms > 0 ? flops / (ms * 1e-3) : 0; }
};

double peak_of(const MachineModel& machine, const std::string& runs_as) {
  const auto* const found =
      std::find(kProductFormatNames.begin(), kProductFormatNames.end(), runs_as);
  if (found == kProductFormatNames.end()) return 0;
  return machine.products[static_cast<size_t>(found - kProductFormatNames.begin())].peak;
}

std::map<Site, Times> add_up(const Run& run, const WindowChoice& windows, bool by_layer) {
  const MachineModel machine = recorded_machine(run);
  std::map<Site, Times> sites;
  for (const GemmSum& row : run.gemms) {
    if (!windows.contains(row)) continue;
    Times& times = sites[{by_layer ? row.layer : -1, row.op, row.pass, row.format_a, row.format_b,
                          row.m, row.n, row.k}];
    times.ms += row.ms;
    times.calls += static_cast<double>(row.calls);
    times.flops += gemm_flops(row.m, row.n, row.k) * static_cast<double>(row.calls);
    times.peak = peak_of(machine, row.runs_as);
    times.emulated = times.emulated || row.emulated;
    times.layers.insert(row.layer);
  }
  return sites;
}

// The fastest site: what the others are held against where a peak is not known.
double best_rate(const std::map<Site, Times>& sites) {
  double best = 0;
  for (const auto& [site, times] : sites) best = std::max(best, times.flops_per_s());
  return best;
}

// best: the rate that all are held against; 0: each against its own peak.
Json rows_of(const std::map<Site, Times>& sites, double best, double n, size_t most) {
  Json rows = Json::array();
  for (const auto& [site, times] : sites) {
    const auto& [layer, op, pass, a, b, m, gemm_n, k] = site;
    const double reference = best > 0 ? best : times.peak;
    const double needed_ms = reference > 0 ? times.flops / reference * 1e3 : 0;
    rows.push_back({{"layer", layer},
                    {"n_layers", times.layers.size()},
                    {"op", op},
                    {"pass", pass},
                    {"m", m},
                    {"n", gemm_n},
                    {"k", k},
                    {"format_a", a},
                    {"format_b", b},
                    {"emulated", times.emulated},
                    {"calls", times.calls / n},
                    {"ms", times.ms / n},
                    {"flops_per_s", times.flops_per_s()},
                    {"reference_flops_per_s", reference},
                    {"share_of_reference", number(times.flops_per_s() / reference)},
                    {"lost_ms", (times.ms - needed_ms) / n}});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return a["lost_ms"].get<double>() > b["lost_ms"].get<double>();
  });
  if (rows.size() > most) rows.erase(rows.begin() + static_cast<ptrdiff_t>(most), rows.end());
  return rows;
}

Json gemms_json(const Run& run, const StepChoice& choice) {
  if (run.gemms.empty()) {
    return missing("no rows of GEMMs: timing.level was not ops, or the run is of an older qstep");
  }
  const WindowChoice windows(run.gemms, choice);
  const auto sites = add_up(run, windows, true), kinds = add_up(run, windows, false);
  const bool peaks = std::all_of(kinds.begin(), kinds.end(),
                                 [](const auto& kind) { return kind.second.peak > 0; });
  const double best = peaks ? 0 : best_rate(kinds);
  constexpr size_t kKinds = 100, kSites = 60;
  return {{"available", true},
          {"n_steps", windows.steps()},
          {"against", peaks ? "peak" : "best"},
          {"reference", peaks ? "the peak of the format that ran"
                              : "the fastest kind of GEMM of this run: no peak rate is recorded"},
          {"n_sites", sites.size()},
          {"kinds", rows_of(kinds, best, windows.rank_steps(), kKinds)},
          {"sites", rows_of(sites, best, windows.rank_steps(), kSites)}};
}

// ---- numeric ledger ----------------------------------------------------------------------------

// Evenly chosen ones, first and last always: no more than `most`.
std::vector<int64_t> thinned(const std::vector<int64_t>& steps, size_t most) {
  if (steps.size() <= most) return steps;
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < most; ++i) chosen.push_back(steps[i * (steps.size() - 1) / (most - 1)]);
  return chosen;
}

struct OperandRow {
  const LedgerRow* last = nullptr;
  std::map<int64_t, const LedgerRow*> by_step;
};

// Layers in the order of the file.
std::vector<std::pair<std::string, std::map<std::string, OperandRow>>> by_layer(
    const std::vector<LedgerRow>& ledger) {
  std::vector<std::pair<std::string, std::map<std::string, OperandRow>>> layers;
  std::map<std::string, size_t> index;
  for (const LedgerRow& row : ledger) {
    const auto [at, is_new] = index.try_emplace(row.layer, layers.size());
    if (is_new) layers.push_back({row.layer, {}});
    OperandRow& operand = layers[at->second].second[row.operand];
    operand.by_step[row.step] = &row;
    operand.last = &row;
  }
  return layers;
}

Json ledger_json(const Run& run) {
  if (run.ledger.empty()) {
    return missing("no numeric ledger: nothing is quantized, or precision.ledger_every is 0");
  }
  std::set<int64_t> counted;
  for (const LedgerRow& row : run.ledger) counted.insert(row.step);
  const auto layers = by_layer(run.ledger);
  size_t n_rows = 0;
  for (const auto& [layer, operands] : layers) n_rows += operands.size();
  constexpr size_t kCells = 30000, kMostSteps = 60, kLeastSteps = 4;
  const std::vector<int64_t> all(counted.begin(), counted.end());
  const std::vector<int64_t> steps =
      thinned(all, std::clamp(kCells / n_rows, kLeastSteps, kMostSteps));

  Json rows = Json::array();
  for (const auto& [layer, operands] : layers) {
    for (const auto slot : precision::kOperandSlotNames) {
      const auto found = operands.find(std::string(slot));
      if (found == operands.end()) continue;
      Json snr = Json::array(), underflow = Json::array();
      for (const int64_t step : steps) {
        const auto at = found->second.by_step.find(step);
        const bool there = at != found->second.by_step.end();
        snr.push_back(there ? short_number(at->second->snr_db, 3) : Json(nullptr));
        underflow.push_back(there ? short_number(at->second->underflowed_share, 3) : Json(nullptr));
      }
      const LedgerRow& last = *found->second.last;
      rows.push_back({{"layer", layer},
                      {"operand", slot},
                      {"format", last.format},
                      {"emulated", last.emulated},
                      {"snr_db", snr},
                      {"underflowed_share", underflow},
                      {"last_amax", short_number(last.amax)},
                      {"last_snr_db", number(last.snr_db)},
                      {"last_underflowed_share", number(last.underflowed_share)},
                      {"last_saturated_share", number(last.saturated_share)},
                      {"last_non_finite_share", number(last.non_finite_share)}});
    }
  }
  return {{"available", true},
          {"n_counted_steps", all.size()},
          {"steps", steps},
          {"rows", std::move(rows)}};
}

}  // namespace

Json precision_section(const Run& run, const StepChoice& choice) {
  return {{"available", true},
          {"gemms", gemms_json(run, choice)},
          {"ledger", ledger_json(run)},
          {"amdahl", missing("needs the same GEMMs in BF16, timed beside these: qstep compare")}};
}

}  // namespace qstep::trainer::report
