#include "trainer/bench/bench_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "trainer/bench/bench_step.h"
#include "trainer/machine/machine.h"
#include "trainer/machine/rank_peaks.h"
#include "trainer/run/timing_rows.h"

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
    const bool fp32 = logged.work.type == ops::Dtype::kF32;
    row.format = span.call == "gemm" ? runs_as(span.gemm)
                 : fp32              ? ProductFormat::kFp32
                                     : ProductFormat::kBf16;
  }
  std::vector<OpRow> list;
  for (auto& [key, row] : rows) list.push_back(std::move(row));
  return list;
}

void set_bounds(std::vector<OpRow>& rows, const MachineModel& machine) {
  const auto ms_at = [](double amount, double rate) { return rate > 0 ? 1e3 * amount / rate : 0; };
  for (OpRow& row : rows) {
    const double flops_ms = ms_at(row.work.flops, machine.product(row.format).peak);
    const double bytes_ms = ms_at(row.work.bytes, machine.memory.peak);
    row.bound = flops_ms > bytes_ms ? OpBound::kFlops : OpBound::kBytes;
    row.bound_ms = std::max(flops_ms, bytes_ms);
  }
}

OpsBench bench_ops(const Config& given, parallel::Comm& world, int64_t warmup, int64_t steps) {
  constexpr double kPeakSeconds = 0.3;
  OpsBench result;
  Config config = given;
  config.timing.level = TimingLevel::kOps;
  StepBench bench(config, world);
  result.device = bench.device();
  const bool measures = result.device == kMeasuredMachine;
  PeakRates peak;
  if (measures) peak = measure_peak(kPeakSeconds);
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
  if (measures) {
    const Machine machine = read_machine();
    result.machine = measured_machine(best_of(peak, measure_peak(kPeakSeconds)), machine.cpu_name,
                                      machine.memory_bytes);
  } else {
    result.machine = rank_machine(world, config, result.device);
  }
  result.rows = medians(rows);
  set_bounds(result.rows, result.machine);
  std::stable_sort(result.rows.begin(), result.rows.end(),
                   [](const OpRow& a, const OpRow& b) { return a.lost_ms() > b.lost_ms(); });
  return result;
}

}  // namespace qstep::trainer
