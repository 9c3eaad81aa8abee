#include "trainer/bench_step.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "ops/parallel_for.h"
#include "precision/philox.h"
#include "trainer/format.h"
#include "trainer/peak.h"
#include "trainer/trainer.h"

namespace qstep::trainer {

namespace {

// Tokens uniform over the vocabulary: embedding rows and targets are as scattered as they can be.
class RandomBatches final : public BatchSource {
 public:
  explicit RandomBatches(const Config& c)
      : seed_(c.train.seed),
        vocab_size_(static_cast<uint32_t>(c.model.vocab_size)),
        tokens_(static_cast<size_t>(c.train.micro_batch * c.train.seq_len)),
        targets_(tokens_.size()) {}

  MicroBatch next() override {
    ++batch_;
    for (uint32_t i = 0; i < tokens_.size(); ++i) {
      const auto words = precision::philox4x32(seed_, {{i, batch_, 0, 0}});
      tokens_[i] = static_cast<int32_t>(words.w[0] % vocab_size_);
      targets_[i] = static_cast<int32_t>(words.w[1] % vocab_size_);
    }
    return {tokens_, targets_};
  }

 private:
  uint64_t seed_;
  uint32_t vocab_size_;
  uint32_t batch_ = 0;
  std::vector<int32_t> tokens_, targets_;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

BenchStepResult bench_step(const Config& config, int64_t warmup, int64_t steps) {
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, config);
  RandomBatches batches(config);
  std::vector<double> step_ms;
  std::array<std::vector<double>, kPhaseNames.size()> phase_ms;
  BenchStepResult result;
  for (int64_t step = 1; step <= warmup + steps; ++step) {
    const StepResult r = trainer.step(batches, config.optimizer.lr, step);
    (step == 1 ? result.first_loss : result.last_loss) = r.loss;
    if (step <= warmup) continue;
    step_ms.push_back(total_ms(r.phases_ms));
    for (size_t i = 0; i < phase_ms.size(); ++i) phase_ms[i].push_back(r.phases_ms[i]);
  }
  result.step_ms = median(step_ms);
  for (size_t i = 0; i < phase_ms.size(); ++i) result.phases_ms[i] = median(phase_ms[i]);
  const auto tokens = static_cast<double>(config.train.global_batch * config.train.seq_len);
  result.tokens_per_s = tokens / (result.step_ms * 1e-3);
  result.model_flops_per_s =
      result.tokens_per_s *
      flops_per_token(config.model, config.train.seq_len, AttentionCount::kCausal);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  result.peak_rss_bytes = static_cast<int64_t>(usage.ru_maxrss) * 1024;
  return result;
}

namespace {

struct Options {
  std::string model = "gpt2-124m";
  std::string precision = "bf16";
  int64_t batch = 4;
  int64_t micro_batches = 1;
  int64_t seq_len = 256;
  int64_t steps = 10;
  int64_t warmup = 2;
  int64_t threads = 0;
  bool json = false;
};

void run(const Options& o) {
  if (o.threads > 0) omp_set_num_threads(static_cast<int>(o.threads));
  const std::vector<std::string> overrides = {
      fmt::format("model.preset={}", o.model), fmt::format("precision.recipe={}", o.precision),
      fmt::format("train.micro_batch={}", o.batch),
      fmt::format("train.global_batch={}", o.batch * o.micro_batches),
      fmt::format("train.seq_len={}", o.seq_len)};
  constexpr int64_t kVocabulary = 4096;  // of models that take theirs from a corpus
  Config config = load_config("", overrides).config;
  finish_model(config, kVocabulary);

  // The peak of the compute type, before and after: the machine's speed may drift meanwhile.
  const bool bf16 = config.compute_dtype() == ops::Dtype::kBf16;
  const auto peak = [&] {
    constexpr double kSecondsEach = 0.15;
    const PeakRates rates = measure_peak(kSecondsEach);
    return bf16 ? rates.bf16_flops_per_s() : rates.fp32_flops_per_s();
  };
  const double before = peak();
  const BenchStepResult r = bench_step(config, o.warmup, o.steps);
  const double peak_flops = std::max(before, peak());
  const double utilisation = r.model_flops_per_s / peak_flops;

  if (o.json) {
    nlohmann::json phases;
    for (size_t i = 0; i < kPhaseNames.size(); ++i) {
      phases[std::string(kPhaseNames[i])] = r.phases_ms[i];
    }
    const nlohmann::json out = {{"model", o.model},
                                {"n_parameters", n_parameters(config.model)},
                                {"precision", o.precision},
                                {"batch", o.batch},
                                {"micro_batches", o.micro_batches},
                                {"seq_len", o.seq_len},
                                {"steps", o.steps},
                                {"threads", ops::max_threads()},
                                {"step_ms", r.step_ms},
                                {"phases_ms", phases},
                                {"tokens_per_s", r.tokens_per_s},
                                {"model_flops_per_s", r.model_flops_per_s},
                                {"peak_flops_per_s", peak_flops},
                                {"utilisation", utilisation},
                                {"peak_rss_bytes", r.peak_rss_bytes}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{} {} | {} x {} sequences of {} tokens | {} threads | medians of {} steps\n", o.model,
             o.precision, o.micro_batches, o.batch, o.seq_len, ops::max_threads(), o.steps);
  fmt::print("  step         {:10.1f} ms   {:.0f} tokens/s\n", r.step_ms, r.tokens_per_s);
  for (size_t i = 0; i < kPhaseNames.size(); ++i) {
    fmt::print("    {:<10} {:10.1f} ms   {:5.1f} %\n", kPhaseNames[i], r.phases_ms[i],
               100.0 * r.phases_ms[i] / r.step_ms);
  }
  fmt::print("  model rate   {:10.1f} GFLOP/s (causal attention)\n", r.model_flops_per_s * 1e-9);
  fmt::print("  peak {:<5}   {:10.1f} GFLOP/s (measured)   utilisation {:.1f} %\n", o.precision,
             peak_flops * 1e-9, 100.0 * utilisation);
  fmt::print("  peak memory  {:>10}\n", bytes_text(r.peak_rss_bytes));
}

}  // namespace

void add_bench_step(CLI::App& bench, int&) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* cmd = bench.add_subcommand("step", "Time whole training steps on synthetic tokens");
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  cmd->add_option("--model", o.model, "preset (qstep config presets)")->capture_default_str();
  cmd->add_option("--precision", o.precision, "recipe, a name or a path (qstep recipe list)")
      ->capture_default_str();
  cmd->add_option("--batch", o.batch, "sequences per micro-batch")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--micro-batches", o.micro_batches, "micro-batches per step")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--seq", o.seq_len, "tokens per sequence")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--steps", o.steps, "steps that are timed")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--warmup", o.warmup, "steps before them that are not")
      ->check(positive)
      ->capture_default_str();
  cmd->add_option("--threads", o.threads, "0 = all cores this process may use")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_flag("--json", o.json, "result as JSON");
  cmd->footer(
      "Example:\n  qstep bench step --model gpt2-124m --precision bf16 --batch 4 --seq 256 --steps "
      "10");
  cmd->callback([options] { run(*options); });
}

}  // namespace qstep::trainer
