#include "trainer/bench/bench_workload.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <omp.h>

#include "ops/parallel_for.h"

namespace qstep::trainer {

Config BenchWorkload::config(const std::string& recipe) const {
  std::vector<std::string> words = {fmt::format("model.preset={}", model),
                                    fmt::format("precision.recipe={}", recipe),
                                    fmt::format("train.micro_batch={}", batch),
                                    fmt::format("train.global_batch={}", batch * micro_batches),
                                    fmt::format("train.seq_len={}", seq_len)};
  words.insert(words.end(), overrides.begin(), overrides.end());
  constexpr int64_t kVocabulary = 4096;  // of models that take theirs from a corpus
  Config config = load_config("", words).config;
  finish_model(config, kVocabulary);
  return config;
}

void BenchWorkload::set_threads() const {
  if (threads > 0) omp_set_num_threads(static_cast<int>(threads));
}

std::string BenchWorkload::model_text() const {
  return overrides.empty() ? model : fmt::format("{} {}", model, fmt::join(overrides, " "));
}

std::string BenchWorkload::text(int n_ranks) const {
  return fmt::format("{} x {} sequences of {} tokens | {}{} threads", micro_batches, batch, seq_len,
                     n_ranks > 1 ? fmt::format("{} ranks x ", n_ranks) : "", ops::max_threads());
}

void add_workload_options(CLI::App& command, BenchWorkload& w) {
  const auto positive = CLI::Range(int64_t{1}, int64_t{1} << 30);
  command.add_option("--model", w.model, "preset (qstep config presets)")->capture_default_str();
  command.add_option("--batch", w.batch, "sequences per micro-batch")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--micro-batches", w.micro_batches, "micro-batches per step")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--seq", w.seq_len, "tokens per sequence")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--threads", w.threads, "0 = all cores this process may use")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("overrides", w.overrides, "any other option of the run, section.key=value")
      ->type_name("[KEY=VALUE ...]");
}

nlohmann::ordered_json to_json(const BenchWorkload& w, const Config& config, int n_ranks) {
  return {{"model", w.model},
          {"overrides", w.overrides},
          {"n_parameters", n_parameters(config.model)},
          {"batch", w.batch},
          {"micro_batches", w.micro_batches},
          {"seq_len", w.seq_len},
          {"ranks", n_ranks},
          {"threads", ops::max_threads()}};
}

}  // namespace qstep::trainer
