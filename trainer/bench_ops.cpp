#include "trainer/bench_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "trainer/bench_step.h"

namespace qstep::trainer {

namespace {

std::string op_of(const TimeSpan& span) {
  return span.call == "gemm" ? fmt::format("gemm {}", span.label) : std::string(span.call);
}

std::string detail_of(const TimeSpan& span, const OpWork& work) {
  if (span.call != "gemm") return work.kind;
  const GemmCall& g = span.gemm;
  const std::string formats = g.a == g.b ? std::string(format_name(g.a))
                                         : fmt::format("{}/{}", format_name(g.a), format_name(g.b));
  return fmt::format("{} x {} x {} {}", g.m, g.n, g.k, formats);
}

// Of steps that make the same calls.
std::vector<OpRow> medians(const std::vector<std::vector<OpRow>>& steps) {
  std::vector<OpRow> rows = steps.front();
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<double> ms;
    for (const std::vector<OpRow>& step : steps) {
      ops::check(step.size() == rows.size() && step[i].op == rows[i].op &&
                     step[i].detail == rows[i].detail,
                 "bench ops: steps that differ in their calls");
      ms.push_back(step[i].ms);
    }
    rows[i].ms = quantile(ms, 0.5);
  }
  return rows;
}

}  // namespace

std::vector<OpRow> op_rows(std::span<const TimeSpan> spans, std::span<const LoggedWork> log) {
  std::map<std::pair<std::string, std::string>, OpRow> rows;
  for (const LoggedWork& logged : log) {
    const TimeSpan& span = spans[logged.span];
    const std::string op = op_of(span), detail = detail_of(span, logged.work);
    OpRow& row = rows[{op, detail}];
    row.op = op;
    row.detail = detail;
    row.calls += 1;
    row.ms += 1e-6 * static_cast<double>(span.own_ns());
    row.work.flops += logged.work.flops;
    row.work.bytes += logged.work.bytes;
    row.work.type = logged.work.type;
  }
  std::vector<OpRow> list;
  for (auto& [key, row] : rows) list.push_back(std::move(row));
  return list;
}

void set_bounds(std::vector<OpRow>& rows, const PeakRates& peak) {
  for (OpRow& row : rows) {
    // Where a processor has no BF16 product it widens the operands.
    const double bf16 = peak.bf16_flops_per_s(), fp32 = peak.fp32_flops_per_s();
    const double rate = row.work.type == ops::Dtype::kBf16 && bf16 > 0 ? bf16 : fp32;
    const double flops_ms = 1e3 * row.work.flops / rate;
    const double bytes_ms = 1e3 * row.work.bytes / peak.triad_bytes_per_s;
    row.bound = flops_ms > bytes_ms ? OpBound::kFlops : OpBound::kBytes;
    row.bound_ms = std::max(flops_ms, bytes_ms);
  }
}

OpsBench bench_ops(const Config& given, parallel::Comm& world, int64_t warmup, int64_t steps) {
  constexpr double kPeakSeconds = 0.3;
  OpsBench result;
  result.peak = measure_peak(kPeakSeconds);
  Config config = given;
  config.timing.level = TimingLevel::kOps;
  StepBench bench(config, world);
  for (int64_t i = 0; i < warmup; ++i) bench.warm_up();
  std::vector<std::vector<OpRow>> rows;
  WorkLog log;
  bench.trainer().log_work(&log);
  for (int64_t i = 0; i < steps; ++i) {
    log.clear();
    bench.time();
    rows.push_back(op_rows(bench.trainer().timeline().spans(), log));
  }
  result.step_ms = bench.result().step_ms;
  result.peak = best_of(result.peak, measure_peak(kPeakSeconds));
  result.rows = medians(rows);
  set_bounds(result.rows, result.peak);
  std::stable_sort(result.rows.begin(), result.rows.end(),
                   [](const OpRow& a, const OpRow& b) { return a.lost_ms() > b.lost_ms(); });
  return result;
}

}  // namespace qstep::trainer
