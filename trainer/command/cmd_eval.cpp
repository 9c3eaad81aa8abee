// qstep eval: the loss of a checkpoint on a token store's validation part.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "trainer/backend/backend.h"
#include "trainer/command/commands.h"
#include "trainer/command/device_option.h"
#include "trainer/inference/evaluator.h"
#include "trainer/inference/loaded_model.h"
#include "trainer/step/evaluation.h"

namespace qstep::trainer {

namespace {

struct Options {
  std::string checkpoint;
  std::string data;
  std::string precision;
  Device device = RunConfig{}.device;
  int64_t batches = 0;
  int64_t micro_batch = 0;
  bool json = false;
};

void run(const Options& o) {
  const auto ops = make_backend(o.device);
  const LoadedModel loaded(*ops, o.checkpoint, o.precision, Passes::kMicroBatches, o.micro_batch);
  const Config& config = loaded.config();
  const data::TokenStore store =
      data::TokenStore::open(o.data.empty() ? config.data.train : o.data);
  check_tokenizer(loaded.state(), loaded.path(), store);
  const int64_t B = config.train.micro_batch, T = config.train.seq_len;
  const data::Loader loader(store,
                            {.seq_len = T, .micro_batch = B, .micros_per_step = 1, .seed = 0});
  if (loader.validation_batches() == 0) {
    throw ops::Error(
        ops::ExitCode::kData,
        fmt::format("{}: its validation part has {} tokens, fewer than seq_len + 1 = {}",
                    store.path(), store.num_tokens(data::Part::kValidation), T + 1));
  }

  Evaluator evaluator(*ops, loaded);
  const auto start = std::chrono::steady_clock::now();
  const EvalResult result =
      evaluate(store, loader, *parallel::make_single(),
               o.batches > 0 ? o.batches : std::numeric_limits<int64_t>::max(),
               [&](const MicroBatch& batch) { return evaluator.loss(batch); });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double rate = static_cast<double>(result.tokens) / seconds;
  if (o.json) {
    nlohmann::json out = {{"checkpoint", loaded.path()},   {"step", loaded.state().step},
                          {"data", store.path()},          {"recipe", config.precision.recipe},
                          {"loss", result.loss},           {"tokens", result.tokens},
                          {"tokens_per_s", rate},          {"device", ops->name()},
                          {"emulated", loaded.emulated()}, {"precision", loaded.precision_text()}};
    out["bits_per_byte"] = std::isfinite(result.bits_per_byte)
                               ? nlohmann::json(result.bits_per_byte)
                               : nlohmann::json(nullptr);
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print(
        "step {} | loss {:.4f} nats | {:.4f} bits/byte | {} tokens, {:.0f} tok/s | {} on {}\n",
        loaded.state().step, result.loss, result.bits_per_byte, result.tokens, rate,
        loaded.precision_text(), ops->name());
  }
}

}  // namespace

void add_eval_command(CLI::App& app, int&) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* cmd = app.add_subcommand("eval", "Loss of a checkpoint on a corpus' validation part");
  cmd->add_option("--checkpoint", o.checkpoint, "checkpoint folder, or a run folder (its newest)")
      ->required();
  cmd->add_option("--data", o.data, "token store; the one of the run if not given");
  cmd->add_option("--batches", o.batches, "micro-batches to evaluate; 0 = all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_option("--micro-batch", o.micro_batch,
                  "sequences at a time, where memory is short; 0 = the run's own. Scales of whole "
                  "tensors are those of such a micro-batch")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  cmd->add_option("--precision", o.precision,
                  "recipe (a name or a path); the run's own if not given");
  add_device_option(*cmd, o.device);
  cmd->add_flag("--json", o.json, "result as JSON");
  cmd->footer("Example:\n  qstep eval --checkpoint runs/first --data corpus.h5");
  cmd->callback([options] { run(*options); });
}

}  // namespace qstep::trainer
