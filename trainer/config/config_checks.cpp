// Options that are right alone and wrong together.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

#include "trainer/base/nearest.h"
#include "trainer/config/config_options.h"
#include "trainer/config/recipe_check.h"
#include "trainer/config/tensor_check.h"
#include "trainer/machine/rank_peaks.h"

namespace qstep::trainer {

std::vector<std::string> contradictions(const Config& c, const std::set<std::string>& faulty) {
  std::vector<std::string> problems;
  const auto problem = [&]<class... Args>(fmt::format_string<Args...> text, Args&&... args) {
    problems.push_back(fmt::format(text, std::forward<Args>(args)...));
  };
  const auto sound = [&](std::initializer_list<const char*> names) {
    return std::none_of(names.begin(), names.end(),
                        [&](const char* name) { return faulty.contains(name); });
  };

  const int64_t micro = c.train.micro_batch, global = c.train.global_batch;
  if (sound({"train.global_batch", "train.micro_batch"}) && global % micro != 0) {
    problem(
        "train.global_batch = {} is not a multiple of train.micro_batch = {}: write "
        "train.global_batch = {}",
        global, micro, multiples_around(global, micro));
  }

  const int64_t steps = c.train.steps, warmup = c.optimizer.warmup_steps;
  if (sound({"train.steps", "optimizer.warmup_steps"}) && warmup > steps) {
    problem(
        "optimizer.warmup_steps = {} is more than train.steps = {}: write optimizer.warmup_steps = "
        "{}",
        warmup, steps, steps / 10);
  } else if (sound({"train.steps", "optimizer.warmup_steps", "optimizer.schedule",
                    "optimizer.decay_fraction"}) &&
             c.optimizer.schedule == Schedule::kWsd) {
    const auto decay =
        static_cast<int64_t>(std::ceil(c.optimizer.decay_fraction * static_cast<double>(steps)));
    if (warmup + decay > steps) {
      problem(
          "optimizer.warmup_steps = {} and a decay of {} steps (optimizer.decay_fraction = {}) are "
          "more "
          "than train.steps = {}: write optimizer.warmup_steps = {}",
          warmup, decay, c.optimizer.decay_fraction, steps, steps - decay);
    }
  }

  if (sound({"optimizer.lr", "optimizer.min_lr"}) && c.optimizer.min_lr > c.optimizer.lr) {
    problem("optimizer.min_lr = {} is above optimizer.lr = {}: write optimizer.min_lr = {}",
            c.optimizer.min_lr, c.optimizer.lr, toml_value(c.optimizer.lr / 10));
  }

  const int64_t trace_first = c.timing.trace_first;
  if (sound({"timing.trace_first", "timing.level"}) && trace_first > 0 &&
      c.timing.level != TimingLevel::kOps) {
    problem(
        "timing.trace_first = {} asks for a trace, which needs every operation, and timing.level = "
        "\"{}\" does not note them: write timing.level = \"ops\"",
        trace_first, choice_name(c.timing.level));
  }
  if (sound({"timing.trace_first", "train.steps"}) && trace_first > steps) {
    problem(
        "timing.trace_first = {} is beyond train.steps = {}: write timing.trace_first = {}, or 0 "
        "for no trace",
        trace_first, steps, std::max<int64_t>(1, steps - c.timing.trace_steps + 1));
  }
  if (sound({"timing.peak"})) {
    const std::string text = peak_problem(c.timing.peak);
    if (!text.empty()) problems.push_back(text);
  }

  const bool model_sound = std::none_of(faulty.begin(), faulty.end(), [](const std::string& name) {
    return section_of(name) == "model" || name == "train.seq_len";
  });
  if (model_sound) {
    std::vector<std::string> texts = model_problems(c.model, c.train.seq_len);
    if (texts.empty() && sound({"parallel.tensor", "train.micro_batch"})) {
      texts = tensor_problems(c);
    }
    problems.insert(problems.end(), texts.begin(), texts.end());
  }
  return problems;
}

void finish_model(Config& config, int64_t corpus_vocab_size) {
  ModelConfig& model = config.model;
  if (model.vocab_size == 0) model.vocab_size = corpus_vocab_size;
  std::vector<std::string> problems = model_problems(model, config.train.seq_len);
  const bool model_sound = problems.empty();
  if (model.vocab_size < corpus_vocab_size) {
    problems.push_back(
        fmt::format("model.vocab_size = {} is less than the vocabulary of the corpus, {}: write "
                    "model.vocab_size = {}",
                    model.vocab_size, corpus_vocab_size, corpus_vocab_size));
  }
  for (const std::string& text : recipe_problems(config, Purpose::kTraining))
    problems.push_back(text);
  if (model_sound) {
    for (const std::string& text : tensor_problems(config)) problems.push_back(text);
  }
  if (!problems.empty()) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("the model does not fit\n  {}", fmt::join(problems, "\n  ")));
  }
}

}  // namespace qstep::trainer
