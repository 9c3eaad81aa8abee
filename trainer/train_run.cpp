#include "trainer/train_run.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>

#include "data/loader.h"
#include "data/prefetcher.h"
#include "ops/parallel_for.h"
#include "parallel/comm.h"
#include "trainer/checkpoint.h"
#include "trainer/config_diff.h"
#include "trainer/evaluation.h"
#include "trainer/loaded_model.h"
#include "trainer/metrics.h"
#include "trainer/run_dir.h"
#include "trainer/run_report.h"
#include "trainer/schedule.h"
#include "trainer/signals.h"
#include "trainer/trainer.h"

namespace qstep::trainer {

namespace {

using Clock = std::chrono::steady_clock;
using ops::Error;
using ops::ExitCode;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

class PrefetchedBatches final : public BatchSource {
 public:
  PrefetchedBatches(const data::Loader& loader, int64_t first_step, int64_t n_micros)
      : prefetcher_(loader, {.start_step = first_step, .micro_begin = 0, .micro_end = n_micros}) {}
  MicroBatch next() override {
    const data::Batch& batch = prefetcher_.next();
    return {batch.tokens, batch.targets};
  }

 private:
  data::Prefetcher prefetcher_;
};

// The serialized tokenizer of a store; empty where the name says it all, or where there is none.
std::string tokenizer_model(const data::TokenStore& store) {
  return store.info().tokenizer == "sentencepiece" ? store.tokenizer()->model() : std::string();
}

// A checkpoint continues only with the model, tokenizer and corpus that it was trained with.
void check_continues(const Config& config, const data::TokenStore& store,
                     const CheckpointReader& checkpoint, const std::string& path) {
  const CheckpointState& state = checkpoint.state();
  const data::StoreInfo& info = store.info();
  if (!state.tokenizer_sha256.empty() && state.tokenizer_sha256 != info.tokenizer_sha256) {
    throw Error(
        ExitCode::kData,
        fmt::format("{}: its tokenizer ({} {:.12}) is not the one of the checkpoint {} ({} "
                    "{:.12}); train on the corpus of that run, or prepare this one with that "
                    "run's tokenizer",
                    store.path(), info.tokenizer, info.tokenizer_sha256, path, state.tokenizer,
                    state.tokenizer_sha256));
  }
  const Config saved = checkpoint_config(state, path);
  const std::string changes = changed_model(saved, config);
  if (!changes.empty()) {
    throw Error(
        ExitCode::kConfig,
        fmt::format("{}: the checkpoint's model is another one; set [model] as it was saved, "
                    "or choose another run.dir\n{}",
                    path, changes));
  }
  const std::string& hash = info.part(data::Part::kTrain).content_hash;
  if (!state.data_content_hash.empty() && state.data_content_hash != hash &&
      !config.data.allow_change) {
    throw Error(ExitCode::kData,
                fmt::format("{}: its content ({:.12}) is not what the checkpoint {} was trained on "
                            "({:.12}); set data.allow_change = true to continue on other text",
                            store.path(), hash, path, state.data_content_hash));
  }
}

class TrainRun {
 public:
  TrainRun(const Config& config, const RunDir& dir)
      : config_(config),
        dir_(dir),
        comm_(parallel::make_single()),
        store_(data::TokenStore::open(config.data.train)) {
    finish_model(config_, static_cast<int64_t>(store_.info().vocab_size));
    loader_ = std::make_unique<data::Loader>(
        store_, data::LoaderOptions{.seq_len = config_.train.seq_len,
                                    .micro_batch = config_.train.micro_batch,
                                    .micros_per_step = config_.train.micros_per_step(),
                                    .seed = config_.train.seed});
    state_.seed = config_.train.seed;
    state_.vocab_size = config_.model.vocab_size;
    state_.config_toml = to_toml(config_);
    state_.config_hash = config_hash(config_);
    state_.data_content_hash = store_.info().part(data::Part::kTrain).content_hash;
    state_.tokenizer = store_.info().tokenizer;
    state_.tokenizer_sha256 = store_.info().tokenizer_sha256;
    state_.tokenizer_model = tokenizer_model(store_);
  }

  ExitCode run();

  int64_t step() const { return state_.step; }
  const std::string& last_checkpoint() const { return last_checkpoint_; }
  const std::string& hash() const { return state_.config_hash; }

 private:
  std::optional<std::string> checkpoint_to_resume() const;
  void refuse_older(const std::string& path) const;
  void resume(const CheckpointReader& checkpoint, const std::string& path);
  void one_step(BatchSource& batches);
  void evaluate_now();
  void save();
  bool stop_requested();

  Config config_;
  const RunDir& dir_;
  std::unique_ptr<parallel::Comm> comm_;
  data::TokenStore store_;
  std::unique_ptr<data::Loader> loader_;
  std::unique_ptr<ops::Ops> ops_ = ops::make_cpu_ops();
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<RunReport> report_;
  CheckpointState state_;
  std::string last_checkpoint_;
  double last_save_ms_ = 0;
};

// Steps that this folder has already seen would be written twice, and a later resume=auto would not
// take up the new ones.
void TrainRun::refuse_older(const std::string& path) const {
  const auto own = list_checkpoints(dir_.checkpoints(), Verify::kFast);
  const int64_t step = inspect_checkpoint(path, Verify::kFast).step;
  if (own.empty() || own.back().step <= step) return;
  throw Error(
      ExitCode::kConfig,
      fmt::format("run.resume = \"{}\" is at step {}, but {} already holds step {}; choose another "
                  "run.dir to start over from there, or run.resume=auto to go on",
                  path, step, dir_.path(), own.back().step));
}

std::optional<std::string> TrainRun::checkpoint_to_resume() const {
  const std::string& resume = config_.run.resume;
  if (resume == "never") {
    dir_.require_fresh();
    return std::nullopt;
  }
  remove_stale_temporaries(dir_.checkpoints());
  if (resume != "auto") {
    const std::string path = resolve_checkpoint(resume);
    refuse_older(path);
    return path;
  }
  return newest_checkpoint(dir_.checkpoints(), [](const CheckpointInfo& damaged) {
    fmt::print(stderr, "warning: passing over {}: {}\n", damaged.path, damaged.problem);
  });
}

void TrainRun::resume(const CheckpointReader& checkpoint, const std::string& path) {
  for (const NamedTensor& tensor : named_tensors(config_.model, trainer_->parameters())) {
    checkpoint.read(tensor);
  }
  trainer_->refresh_weights();
  const CheckpointState& saved = checkpoint.state();
  state_.step = saved.step;
  state_.tokens = saved.tokens;
  state_.updates = saved.updates;
  state_.skipped_steps = saved.skipped_steps;
  state_.bad_steps_in_a_row = saved.bad_steps_in_a_row;
  last_checkpoint_ = path;
  report_->resumed(path, saved.step, changed_settings(saved.config_toml, state_.config_toml));
}

void TrainRun::one_step(BatchSource& batches) {
  const double lr = learning_rate(config_.optimizer, state_.step, config_.train.steps);
  const StepResult result = trainer_->step(batches, lr, state_.updates + 1);

  ++state_.step;
  const int64_t tokens = config_.train.global_batch * config_.train.seq_len;
  state_.tokens += tokens;
  state_.updates += result.skipped ? 0 : 1;
  state_.skipped_steps += result.skipped ? 1 : 0;
  state_.bad_steps_in_a_row = result.skipped ? state_.bad_steps_in_a_row + 1 : 0;

  const double step_ms = total_ms(result.phases_ms);
  const double tokens_per_s = static_cast<double>(tokens) / (step_ms * 1e-3);
  const double flops =
      flops_per_token(config_.model, config_.train.seq_len, AttentionCount::kCausal);
  const StepRow row{.step = state_.step,
                    .loss = result.loss,
                    .lr = lr,
                    .grad_norm = result.grad_norm,
                    .step_ms = step_ms,
                    .tokens = tokens,
                    .tokens_total = state_.tokens,
                    .tokens_per_s = tokens_per_s,
                    .model_flops_per_s = tokens_per_s * flops,
                    .peak_rss_bytes = peak_rss_bytes(),
                    .skipped = result.skipped,
                    .phases_ms = result.phases_ms};
  metrics_->step(row);
  report_->step(row, state_.skipped_steps);

  if (state_.bad_steps_in_a_row >= config_.train.max_bad_steps) {
    save();  // the skipped updates left the weights as they were
    throw Error(
        ExitCode::kNonFinite,
        fmt::format("step {}: loss {} and gradient norm {}: {} steps in a row were not finite "
                    "and their updates skipped; lower optimizer.lr, raise "
                    "optimizer.warmup_steps, or look at the data",
                    state_.step, result.loss, result.grad_norm, state_.bad_steps_in_a_row));
  }
}

void TrainRun::evaluate_now() {
  const Clock::time_point start = Clock::now();
  const EvalResult result = evaluate(store_, *loader_, config_.train.eval_batches,
                                     [&](const MicroBatch& b) { return trainer_->evaluate(b); });
  if (result.tokens == 0) return;
  const EvalRow row{.step = state_.step,
                    .loss = result.loss,
                    .bits_per_byte = result.bits_per_byte,
                    .tokens = result.tokens,
                    .eval_ms = ms_since(start)};
  metrics_->eval(row);
  report_->eval(row);
}

void TrainRun::save() {
  const Clock::time_point start = Clock::now();
  const auto tensors = named_tensors(config_.model, trainer_->parameters());
  save_checkpoint(dir_.checkpoints(), state_, tensors, config_.run.keep_last);
  last_save_ms_ = ms_since(start);
  last_checkpoint_ = fmt::format("{}/step-{:08}", dir_.checkpoints(), state_.step);
  const CheckpointRow row{.step = state_.step, .save_ms = last_save_ms_, .path = last_checkpoint_};
  metrics_->checkpoint(row);
  report_->saved(row);
}

// Every rank must see the same answer, or one would leave the others waiting.
bool TrainRun::stop_requested() {
  int32_t stop = stop_signal() ? 1 : 0;
  comm_->all_reduce(ops::matrix(&stop, ops::Dtype::kI32, 1, 1), parallel::Reduce::kMax);
  return stop != 0;
}

ExitCode TrainRun::run() {
  const std::optional<std::string> from = checkpoint_to_resume();
  std::optional<CheckpointReader> checkpoint;
  if (from) {
    checkpoint.emplace(*from);
    check_continues(config_, store_, *checkpoint, *from);
  }
  report_ = std::make_unique<RunReport>(config_, store_.info());
  report_->header(training_memory(config_), loader_->windows());
  trainer_ = std::make_unique<Trainer>(*ops_, config_);
  if (checkpoint) {
    resume(*checkpoint, *from);
    checkpoint.reset();
  }

  dir_.write_config(state_.config_toml);
  metrics_ = std::make_unique<MetricsFile>(dir_.metrics_jsonl(), state_.step);
  metrics_->run(state_.config_hash, config_.precision.recipe, state_.step + 1,
                n_parameters(config_.model),
                flops_per_token(config_.model, config_.train.seq_len, AttentionCount::kCausal));

  const int64_t steps = config_.train.steps;
  const auto due = [&](int64_t every) { return every > 0 && state_.step % every == 0; };
  bool stopped = false;
  if (state_.step < steps) {
    PrefetchedBatches batches(*loader_, state_.step, config_.train.micros_per_step());
    report_->begin(state_.step);
    while (state_.step < steps && !stopped) {
      one_step(batches);
      stopped = stop_requested();
      const bool last = state_.step == steps;
      if (!stopped && config_.train.eval_every > 0 && (last || due(config_.train.eval_every))) {
        evaluate_now();
        stopped = stop_requested();
      }
      if (stopped || last || due(config_.run.save_every)) save();
    }
  }
  report_->summary(state_, last_checkpoint_, stopped);
  return stopped && state_.step < steps ? ExitCode::kPreempted : ExitCode::kOk;
}

}  // namespace

ExitCode run_training(const Config& config) {
  install_signal_handlers();
  if (config.run.threads > 0) omp_set_num_threads(static_cast<int>(config.run.threads));
  const RunDir dir(config.run.dir);
  ExitReason reason;
  reason.restart_count = dir.restart_count();
  std::unique_ptr<TrainRun> run;
  const auto end = [&](ExitCode code, const std::string& what) {
    reason.code = code;
    reason.what = what;
    if (run) {
      reason.step = run->step();
      reason.last_checkpoint = run->last_checkpoint();
      reason.config_hash = run->hash();
    }
    dir.write_exit_reason(reason);
  };
  try {
    run = std::make_unique<TrainRun>(config, dir);
    const ExitCode code = run->run();
    end(code, code == ExitCode::kPreempted ? "stop signal" : "");
    return code;
  } catch (const std::exception& error) {
    end(exit_code_of(error), error.what());
    throw;
  }
}

}  // namespace qstep::trainer
