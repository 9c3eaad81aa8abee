// qstep bench step
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "ops/parallel_for.h"
#include "trainer/backend/backend.h"
#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/bench/bench_dgxc.h"
#include "trainer/bench/bench_ranks.h"
#include "trainer/bench/bench_recipes.h"
#include "trainer/bench/bench_step.h"
#include "trainer/command/commands.h"
#include "trainer/machine/machine.h"
#include "trainer/machine/rank_peaks.h"
#include "trainer/plan/utilisation.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kMedian = "median", *kDgxc = "dgxc";  // protocols

struct Options {
  BenchWorkload workload;
  std::string protocol = kMedian;
  std::vector<std::string> precision = {"bf16"};
  int64_t steps = 10;
  int64_t warmup = 2;
  bool json = false;
};

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

// What every line and object about a recipe says of it first.
Json labels_json(const Config& config) {
  return {{"precision", config.precision.recipe}, {"emulated", emulated_on_device(config)}};
}

// What the steps are held against: this processor, whose speed may drift while it is measured, as
// the best of what two measurements found, one before the steps and one behind them; of a GPU what
// the table has, no rates where it does not know it.
class BenchMachine {
 public:
  explicit BenchMachine(const Config& config) : device_(make_backend(config.run.device)->name()) {}
  void measure() {
    constexpr double kSecondsEach = 0.15;
    if (measured()) rates_ = best_of(rates_, measure_peak(kSecondsEach));
  }
  MachineModel model() const {
    if (!measured()) {
      const MachineModel* const known = find_device(device_);
      return known != nullptr ? *known : MachineModel{};
    }
    PeakRates rates = rates_;
    rates.n_threads = ops::max_threads();
    const Machine machine = read_machine();
    return measured_machine(rates, machine.cpu_name, machine.memory_bytes);
  }

 private:
  bool measured() const { return device_ == kMeasuredMachine; }

  std::string device_;
  PeakRates rates_;
};

void put_utilisation(Json& json, const Utilisation& used) {
  json["model_flops_per_s"] = used.causal_flops_per_s;
  json["mfu_bf16"] = used.mfu_bf16;
  json["hfu"] = used.hfu;
  json["sol"] = used.sol;
  json["sol_mem"] = used.sol_mem;
}

// Of a rank.
Utilisation used_by(const Config& config, int n_ranks, const MachineModel& machine,
                    const BenchStepResult& r) {
  return utilisation(least_time(step_work(config, n_ranks), machine), r.step_ms * 1e-3);
}

void put_peaks(Json& json, const MachineModel& machine) {
  json["peak_source"] = peaks_source(machine);
  for (size_t i = 0; i < machine.products.size(); ++i) {
    const double peak = machine.products[i].peak;
    if (peak > 0) json["peak_flops_per_s"][std::string(kProductFormatNames[i])] = peak;
  }
  json["peak_memory_bytes_per_s"] = machine.memory.peak;
}

void put_times(Json& json, const BenchStepResult& r) {
  json["step_ms"] = r.step_ms;
  Json phases;
  for (size_t i = 0; i < kPhaseNames.size(); ++i) {
    phases[std::string(kPhaseNames[i])] = r.phases_ms[i];
  }
  json["phases_ms"] = phases;
  if (r.host_ms) json["host_ms"] = *r.host_ms;
  json["tokens_per_s"] = r.tokens_per_s;
}

// Several recipes take turns in rounds of two steps each.
int64_t timed_steps(const Options& o) {
  return o.precision.size() == 1 ? o.steps : (o.steps + 1) / 2 * 2;
}

Json workload_json(const Options& o, const Config& config, int n_ranks) {
  Json json = to_json(o.workload, config, n_ranks);
  json["steps"] = timed_steps(o);
  return json;
}

// ---- one recipe ------------------------------------------------------------------------------

void run_one(const Options& o, const Config& config, parallel::Comm& world) {
  BenchMachine machine(config);
  machine.measure();
  StepBench bench(config, world);
  for (int64_t i = 0; i < o.warmup; ++i) bench.warm_up();
  for (int64_t i = 0; i < o.steps; ++i) bench.time();
  const BenchStepResult r = bench.result();
  machine.measure();
  if (world.rank() > 0) return;
  const Utilisation used = used_by(config, world.size(), machine.model(), r);

  if (o.json) {
    Json out = labels_json(config);
    out.update(workload_json(o, config, world.size()));
    put_times(out, r);
    put_utilisation(out, used);
    put_peaks(out, machine.model());
    out["peak_rss_bytes"] = peak_rss_bytes();
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{} {}{} | {} | medians of {} steps\n", o.workload.model_text(), o.precision[0],
             emulated_on_device(config) ? " (emulated)" : "", o.workload.text(world.size()),
             o.steps);
  fmt::print("  step         {:10.1f} ms   {:.0f} tokens/s\n", r.step_ms, r.tokens_per_s);
  for (size_t i = 0; i < kPhaseNames.size(); ++i) {
    fmt::print("    {:<10} {:10.1f} ms   {:5.1f} %\n", kPhaseNames[i], r.phases_ms[i],
               100.0 * r.phases_ms[i] / r.step_ms);
  }
  if (r.host_ms) {
    fmt::print("  host alone   {:10.1f} ms   {:5.1f} % of the step, beside the GPU\n", *r.host_ms,
               100.0 * *r.host_ms / r.step_ms);
  }
  fmt::print("  model rate   {:10.1f} GFLOP/s (causal attention; {:.1f} full)\n",
             used.causal_flops_per_s * 1e-9, used.full_flops_per_s * 1e-9);
  fmt::print("  MFU          {:>10} of the bf16 peak   HFU {}\n", share_text(used.mfu_bf16),
             share_text(used.hfu));
  fmt::print("  SOL          {:>10}   with what must pass through memory {}\n",
             share_text(used.sol), share_text(used.sol_mem));
  fmt::print("  peak         {}\n", peaks_text(machine.model()));
  fmt::print("  peak memory  {:>10}\n", bytes_text(peak_rss_bytes()));
}

// ---- several ---------------------------------------------------------------------------------

void print_row(const Config& config, size_t name_width, const BenchStepResult& r,
               const Utilisation& used, const std::string& ratio) {
  std::string phases;
  for (const double ms : r.phases_ms) phases += fmt::format(" {:>9.1f}", ms);
  fmt::print("  {:<{}}  {:<8} {:>9.1f} {:>20} {:>8} {:>8}{}\n", config.precision.recipe, name_width,
             emulation_text(emulated_on_device(config)), r.step_ms, ratio,
             share_text(used.mfu_bf16), share_text(used.sol), phases);
}

void run_several(const Options& o, const std::vector<Config>& configs, parallel::Comm& world) {
  size_t name_width = 0;
  for (const std::string& recipe : o.precision) name_width = std::max(name_width, recipe.size());
  BenchMachine measured(configs[0]);
  measured.measure();
  const BenchComparison comparison = bench_recipes(configs, world, o.warmup, o.steps);
  measured.measure();
  if (world.rank() > 0) return;
  const MachineModel machine = measured.model();
  const auto used = [&](size_t i, const BenchStepResult& r) {
    return used_by(configs[i], world.size(), machine, r);
  };

  if (o.json) {
    Json out = workload_json(o, configs[0], world.size());
    out["baseline"] = o.precision[0];
    Json recipes = Json::array();
    recipes.push_back(labels_json(configs[0]));
    put_times(recipes.back(), comparison.baseline);
    put_utilisation(recipes.back(), used(0, comparison.baseline));
    for (size_t i = 0; i < comparison.others.size(); ++i) {
      const BenchRatio& other = comparison.others[i];
      Json row = labels_json(configs[i + 1]);
      put_times(row, other.recipe);
      put_utilisation(row, used(i + 1, other.recipe));
      row["ratio"] = other.ratio;
      row["ratio_quartiles"] = {other.lower_quartile, other.upper_quartile};
      recipes.push_back(row);
    }
    out["recipes"] = recipes;
    put_peaks(out, machine);
    out["peak_rss_bytes"] = peak_rss_bytes();
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{} | {} | medians in ms of {} steps of each, in turn with {}: A B B A\n",
             o.workload.model_text(), o.workload.text(world.size()), timed_steps(o),
             o.precision[0]);
  std::string phases;
  for (const std::string_view phase : kPhaseNames) phases += fmt::format(" {:>9}", phase);
  fmt::print("  {:<{}}  {:<8} {:>9} {:>20} {:>8} {:>8}{}\n", "recipe", name_width, "", "step",
             "ratio (quartiles)", "MFU", "SOL", phases);
  print_row(configs[0], name_width, comparison.baseline, used(0, comparison.baseline), "1");
  for (size_t i = 0; i < comparison.others.size(); ++i) {
    const BenchRatio& other = comparison.others[i];
    print_row(configs[i + 1], name_width, other.recipe, used(i + 1, other.recipe),
              fmt::format("{:.3f} ({:.3f}-{:.3f})", other.ratio, other.lower_quartile,
                          other.upper_quartile));
  }
  fmt::print("Peak: {}\n", peaks_text(machine));
  fmt::print("Emulated: what the format does to a run, not the speed of hardware that has it.\n");
}

// ---- another protocol ------------------------------------------------------------------------

void run_dgxc(const Options& o, const std::vector<Config>& configs, parallel::Comm& world) {
  const bool tells = world.rank() == 0;
  Json out = workload_json(o, configs[0], world.size());
  out["protocol"] = o.protocol;
  out["steps"] = kDgxcSteps;
  out["averaged"] = {kDgxcFirst, kDgxcLast};
  if (tells && !o.json) {
    fmt::print("{} | {} | dgxc: mean of steps {} to {} of {}\n", o.workload.model_text(),
               o.workload.text(world.size()), kDgxcFirst, kDgxcLast, kDgxcSteps);
    fmt::print("  {:<20}{:<10}{:>12}{:>16}{:>24}{:>10}\n", "recipe", "", "s/iteration",
               "tokens/s/rank", "TFLOP/s/rank: causal", "full");
  }
  for (const Config& config : configs) {
    const DgxcResult r = bench_dgxc(config, world);
    Json row = labels_json(config);
    row["s_per_iteration"] = r.s_per_iteration;
    row["tokens_per_s_per_rank"] = r.tokens_per_s;
    row["causal_tflops_per_rank"] = 1e-12 * r.causal_flops_per_s;
    row["full_tflops_per_rank"] = 1e-12 * r.full_flops_per_s;
    row["step_ms"] = r.step_ms;
    out["recipes"].push_back(row);
    if (tells && !o.json) {
      fmt::print("  {:<20}{:<10}{:>12.4f}{:>16.0f}{:>24.4f}{:>10.4f}\n", config.precision.recipe,
                 emulation_text(row["emulated"].get<bool>()), r.s_per_iteration, r.tokens_per_s,
                 1e-12 * r.causal_flops_per_s, 1e-12 * r.full_flops_per_s);
    }
  }
  if (tells && o.json) fmt::print("{}\n", out.dump(2));
}

void run(const Options& o, parallel::Comm& world) {
  const std::vector<Config> configs = configs_on_ranks(o.workload, o.precision, world);
  if (o.protocol == kDgxc) {
    run_dgxc(o, configs, world);
  } else if (configs.size() == 1) {
    run_one(o, configs[0], world);
  } else {
    run_several(o, configs, world);
  }
}

}  // namespace

void add_bench_step_command(CLI::App& bench, int& exit_code) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* cmd = bench.add_subcommand("step", "Time whole training steps on synthetic tokens");
  add_workload_options(*cmd, o.workload);
  cmd->add_option(
         "--precision", o.precision,
         "recipe, a name or a path (qstep recipe list); with several, separated by commas, "
         "each takes turns with the first")
      ->delimiter(',')
      ->capture_default_str();
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  CLI::Option* steps = cmd->add_option("--steps", o.steps, "steps that are timed, of each recipe")
                           ->check(positive)
                           ->capture_default_str();
  CLI::Option* warmup = cmd->add_option("--warmup", o.warmup, "steps before them that are not")
                            ->check(positive)
                            ->capture_default_str();
  cmd->add_option("--protocol", o.protocol,
                  "median; dgxc: 50 steps and the mean of steps 35 to 44, counted from 1, in "
                  "s/iteration and TFLOP/s a rank, one recipe after the other")
      ->check(CLI::IsMember({kMedian, kDgxc}))
      ->capture_default_str();
  cmd->add_flag("--json", o.json, "result as JSON");
  cmd->footer(
      "Examples:\n"
      "  qstep bench step --model gpt2-124m --precision bf16 --batch 4 --seq 256 --steps 10\n"
      "  qstep bench step --model gpt2-124m --precision bf16,nvfp4,mxfp8 --steps 10\n"
      "  mpirun -n 2 qstep bench step --model llama-15m --micro-batches 2 --protocol dgxc");
  cmd->callback([options, steps, warmup, &exit_code] {
    if (options->protocol == kDgxc && steps->count() + warmup->count() > 0) {
      throw CLI::ExcludesError("--protocol dgxc", "--steps and --warmup");
    }
    exit_code = static_cast<int>(
        bench_on_ranks(options->workload, [&](parallel::Comm& world) { run(*options, world); }));
  });
}

}  // namespace qstep::trainer
