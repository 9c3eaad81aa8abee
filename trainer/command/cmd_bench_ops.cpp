// qstep bench ops
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/bench/bench_ops.h"
#include "trainer/bench/bench_ranks.h"
#include "trainer/command/commands.h"
#include "trainer/machine/rank_peaks.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  BenchWorkload workload;
  std::string precision = "bf16";
  int64_t steps = 5, warmup = 2;
  bool json = false;
};

std::string_view name(OpBound bound) { return kOpBoundNames[static_cast<size_t>(bound)]; }

// Together, in ms of a step.
struct Sums {
  double ms = 0, bound_ms = 0;
};
Sums sums_of(const OpsBench& bench) {
  Sums sums;
  for (const OpRow& row : bench.rows) sums.ms += row.ms, sums.bound_ms += row.bound_ms;
  return sums;
}

void print_json(const Options& o, const Config& config, int n_ranks, const OpsBench& bench) {
  Json out = to_json(o.workload, config, n_ranks);
  out["precision"] = o.precision;
  out["emulated"] = emulated_on_device(config);
  out["steps"] = o.steps;
  out["device"] = bench.device;
  out["peak_flops_per_s"] = Json::object();
  for (size_t i = 0; i < kProductFormatNames.size(); ++i) {
    const double peak = bench.machine.products[i].peak;
    if (peak > 0) out["peak_flops_per_s"][kProductFormatNames[i]] = peak;
  }
  out["peak_bytes_per_s"] = bench.machine.memory.peak;
  const Sums sums = sums_of(bench);
  out["step_ms"] = bench.step_ms;
  out["ops_ms"] = sums.ms;
  out["bound_ms"] = sums.bound_ms;
  out["ops"] = Json::array();
  for (const OpRow& row : bench.rows) {
    out["ops"].push_back({{"op", row.op},
                          {"detail", row.detail},
                          {"calls", row.calls},
                          {"ms", row.ms},
                          {"flops", row.work.flops},
                          {"bytes", row.work.bytes},
                          {"bound", name(row.bound)},
                          {"bound_ms", row.bound_ms},
                          {"share_of_bound", row.share()}});
  }
  fmt::print("{}\n", out.dump(2));
}

void print_table(const Options& o, const Config& config, int n_ranks, const OpsBench& bench) {
  size_t op_width = 4, detail_width = 0;
  for (const OpRow& row : bench.rows) {
    op_width = std::max(op_width, row.op.size());
    detail_width = std::max(detail_width, row.detail.size());
  }
  fmt::print("{} {}{} | {} | medians of {} steps\n", o.workload.model_text(), o.precision,
             emulated_on_device(config) ? " (emulated)" : "", o.workload.text(n_ranks), o.steps);
  if (n_ranks > 1) fmt::print("of the first rank, without what it waited for the others\n");
  fmt::print("peaks of {}: {}\n", bench.device, peaks_text(bench.machine));
  fmt::print("\n{:<{}}  {:<{}}{:>7}{:>10}{:>9}{:>10}{:>10}  {:<6}{:>9}{:>10}\n", "op", op_width, "",
             detail_width, "calls", "ms", "GB/s", "GFLOP/s", "bound ms", "", "of bound", "lost ms");
  for (const OpRow& row : bench.rows) {
    const std::string flops =
        row.work.flops > 0 ? fmt::format("{:.1f}", 1e-9 * row.flops_per_s()) : "-";
    fmt::print("{:<{}}  {:<{}}{:>7}{:>10.3f}{:>9.2f}{:>10}", row.op, op_width, row.detail,
               detail_width, row.calls, row.ms, 1e-9 * row.bytes_per_s(), flops);
    if (row.bound_ms > 0) {
      fmt::print("{:>10.3f}  {:<6}{:>7.0f} %{:>10.3f}\n", row.bound_ms, name(row.bound),
                 100 * row.share(), row.lost_ms());
    } else {
      fmt::print("{:>10}\n", "not known");
    }
  }
  const Sums sums = sums_of(bench);
  fmt::print("{:<{}}  {:<{}}{:>7}{:>10.3f}{:>9}{:>10}{:>10.3f}  {:<6}{:>7.0f} %{:>10.3f}\n", "sum",
             op_width, "", detail_width, "", sums.ms, "", "", sums.bound_ms, "",
             100 * sums.bound_ms / sums.ms, sums.ms - sums.bound_ms);
  fmt::print("{:<{}}  {:<{}}{:>7}{:>10.3f}\n", "step", op_width, "", detail_width, "",
             bench.step_ms);
  fmt::print(
      "\nBound: flops at the peak of their type, or bytes, each tensor through memory once, at the "
      "memory's rate.\nAbove 100 %: a cache held some of the tensors.\n");
}

void run(const Options& o, parallel::Comm& world) {
  const Config config = configs_on_ranks(o.workload, {o.precision}, world)[0];
  const OpsBench bench = bench_ops(config, world, o.warmup, o.steps);
  if (world.rank() > 0) return;
  o.json ? print_json(o, config, world.size(), bench) : print_table(o, config, world.size(), bench);
}

}  // namespace

void add_bench_ops_command(CLI::App& bench, int& exit_code) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* cmd = bench.add_subcommand(
      "ops", "Time each operation of training steps against its bound, flops or bytes");
  add_workload_options(*cmd, o.workload);
  cmd->add_option("--precision", o.precision, "recipe, a name or a path (qstep recipe list)")
      ->capture_default_str();
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  cmd->add_option("--steps", o.steps, "steps that are timed")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--warmup", o.warmup, "steps before them that are not")
      ->check(positive)
      ->capture_default_str();
  cmd->add_flag("--json", o.json, "result as JSON");
  cmd->footer(
      "Example:\n  qstep bench ops --model gpt2-124m --precision nvfp4 --batch 4 --seq 256");
  cmd->callback([options, &exit_code] {
    exit_code = static_cast<int>(
        bench_on_ranks(options->workload, [&](parallel::Comm& world) { run(*options, world); }));
  });
}

}  // namespace qstep::trainer
